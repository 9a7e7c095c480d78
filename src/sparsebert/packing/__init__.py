"""The packed format: pruned matrices as their kept values and one bit per pair."""

from __future__ import annotations

from sparsebert.packing.answers import AnswerCheck, check_answers, renew_checksums
from sparsebert.packing.dtypes import VALUE_TYPES
from sparsebert.packing.forms import Weight, parts_of, to_dense
from sparsebert.packing.pack_folder import PackResult, check_packed_from, pack
from sparsebert.packing.packed_model import PackedModel, is_packed, open_packed
from sparsebert.packing.unpack_folder import UnpackResult, unpack
from sparsebert.packing.weights import engine_weights

__all__ = [
    "VALUE_TYPES",
    "AnswerCheck",
    "PackResult",
    "PackedModel",
    "UnpackResult",
    "Weight",
    "check_answers",
    "check_packed_from",
    "engine_weights",
    "is_packed",
    "open_packed",
    "pack",
    "parts_of",
    "renew_checksums",
    "to_dense",
    "unpack",
]
