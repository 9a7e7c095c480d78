"""A model's answers to fixed inputs, recorded in checksums.json to be compared later.

Checksums show that a file is unchanged; the answers show that this machine, and the engine on it,
compute from it what was computed where it was packed.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import sparsebert
from sparsebert.checkpoint.config import EncoderConfig, Head
from sparsebert.checkpoint.dtypes import Array
from sparsebert.engine import Encoder
from sparsebert.packing.checksums import write_checksums
from sparsebert.packing.packed_model import PackedModel, open_packed

_LENGTHS = (1, 7, 32)  # tokens of the sequences
_STEP = 7919  # a prime: from one id to the next
_KEPT = 64  # numbers, evenly spread over the answers
# Allowed differences, as a share of the largest number: other versions round differently, and in
# floats other instruction sets. In int8, the last bit of an activation may move it by a whole step.
_TOLERANCES = {"fp32": 1e-4, "fp16": 1e-4, "int8": 2e-2}


@dataclass(frozen=True)
class AnswerCheck:
    """How close answers are to those recorded when the model was packed.

    ``exact`` means bit for bit; ``difference`` is the largest, as a share of the largest number.
    """

    exact: bool
    difference: float
    tolerance: float

    @property
    def fine(self) -> bool:
        """Whether they differ by no more than other instructions may cause."""
        return self.exact or self.difference <= self.tolerance

    def told(self) -> str:
        """How close they are, in words."""
        if self.exact:
            return "to the bit"
        return f"off by {self.difference:.1e} of the largest number"


def renew_checksums(folder: str | Path) -> None:
    """Accept a packed folder as it is now: rewrite its checksums and answers.

    Raises CheckpointError for a folder that cannot be opened or whose answers are not finite, and
    OutputError if it cannot be written.
    """
    packed = open_packed(folder, as_it_is=True)
    write_checksums(packed.path, packed.file.tensors, _record(packed))


def check_answers(packed: PackedModel) -> AnswerCheck | None:
    """Run the model on the fixed inputs again and compare; None if no answers were recorded."""
    recorded = packed.checksums.answers if packed.checksums else {}
    before = recorded.get("values")
    if not isinstance(before, list) or not all(type(value) is float for value in before):
        return None
    now = _record(packed)
    if len(before) != len(now["values"]):
        return None
    difference = np.abs(np.array(before) - now["values"]).max() / np.abs(now["values"]).max()
    tolerance = _TOLERANCES[packed.dtype]
    # In int8, answers are the same on every machine with these instructions.
    same = all(recorded.get(key) == now[key] for key in ("instruction_set", "sparsebert"))
    exact = recorded.get("crc32") == now["crc32"]
    if packed.dtype == "int8" and same and not exact:
        tolerance = 0.0
    return AnswerCheck(exact, float(difference), tolerance)


def _record(packed: PackedModel) -> dict[str, Any]:
    encoder = Encoder(packed.config, packed.weights, threads=1)
    answers = _answers(encoder, packed.config)
    kept = min(_KEPT, answers.size)
    places = np.arange(kept) * (answers.size - 1) // (kept - 1)
    return {
        "crc32": f"{zlib.crc32(answers.astype('<f4').tobytes()):08x}",
        "instruction_set": encoder.instruction_set,
        "sparsebert": sparsebert.__version__,
        "values": [float(value) for value in answers[places]],
    }


def _answers(encoder: Encoder, config: EncoderConfig) -> Array:
    """Means of hidden states, and the head's output for the first sequence: ``[numbers]``."""
    lengths = [min(length, config.max_length) for length in _LENGTHS]
    offsets = np.cumsum([0, *lengths], dtype=np.int32)
    ids = (1 + _STEP * np.arange(offsets[-1], dtype=np.int64)) % config.vocab_size
    types = np.zeros_like(ids)
    found = [encoder.pooled(ids, types, offsets)]
    if config.head is not Head.ENCODER:
        one = slice(0, lengths[0])
        found.append(encoder.head(ids[one], types[one], offsets[:2]))
    return np.concatenate([each.reshape(-1) for each in found])
