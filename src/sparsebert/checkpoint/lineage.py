"""The record of how a folder was made, kept in its config.json under ``sparsity``."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import sparsebert
from sparsebert.checkpoint.sparsity import SPARSITY_VERSION, pattern_record, read_pattern
from sparsebert.patterns import Pattern


def with_step(
    raw: dict[str, Any],
    step: str,
    source: str,
    arguments: dict[str, Any],
    *,
    pattern: Pattern | None = None,
    method: str | None = None,
    layers: Sequence[str] | None = None,
) -> dict[str, Any]:
    """A copy of a config.json with one more step in its lineage.

    ``source`` names what the step started from (`hub.source_name`); ``arguments`` are the step's
    own, as JSON values. ``pattern``, ``method`` and ``layers`` (canonical names) replace the record
    where they are given.
    """
    raw = copy.deepcopy(raw)
    old = raw.get("sparsity") or {}
    raw["sparsity"] = {
        "format_version": SPARSITY_VERSION,
        **pattern_record(pattern or read_pattern(old)),
        "method": method if method is not None else old.get("method"),
        "layers": list(layers) if layers is not None else old.get("layers", []),
        "lineage": [
            *old.get("lineage", []),
            {
                "step": step,
                "from": source,
                "sparsebert": sparsebert.__version__,
                "arguments": arguments,
            },
        ],
    }
    return raw
