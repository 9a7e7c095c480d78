"""The record in config.json under ``sparsity``: what is pruned, and how the folder was made."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sparsebert
from sparsebert.errors import CheckpointError, PatternError
from sparsebert.patterns import Pattern

SPARSITY_VERSION = 1


def pattern_record(pattern: Pattern | None) -> dict[str, Any]:
    """A pattern as it is recorded: "pattern" (N:M), and "shared_rows" if rows share it.

    Readers that do not know of shared rows see a plain N:M pattern, which is also true.
    """
    if pattern is None:
        return {"pattern": None}
    shared = {} if pattern.shared_rows == 1 else {"shared_rows": pattern.shared_rows}
    return {"pattern": pattern.ratio, **shared}


def read_pattern(record: dict[str, Any]) -> Pattern | None:
    """The inverse of `pattern_record`; PatternError for what it does not write."""
    text, rows = record.get("pattern"), record.get("shared_rows", 1)
    if type(rows) is not int or not isinstance(text, str | None) or (text is None and rows != 1):
        raise PatternError("'pattern' and 'shared_rows' do not describe a pattern.")
    return None if text is None else Pattern.parse(text, rows)


def read_sparsity(raw: dict[str, Any], where: Path) -> dict[str, Any] | None:
    """The record as it is, None without one; CheckpointError if sparsebert did not write it."""
    record = raw.get("sparsity")
    if record is None:
        return None
    problem = CheckpointError(f"{where}: 'sparsity' is not a record written by sparsebert.")
    if not isinstance(record, dict):
        raise problem
    version = record.get("format_version")
    if type(version) is int and version > SPARSITY_VERSION:
        raise CheckpointError(
            f"{where}: 'sparsity' has format version {version}, but this version of sparsebert "
            f"reads up to {SPARSITY_VERSION}. Install a newer one."
        )
    layers, lineage = record.get("layers", []), record.get("lineage", [])
    if (
        version != SPARSITY_VERSION
        or not isinstance(record.get("method"), str | None)
        or not isinstance(layers, list)
        or not all(isinstance(name, str) for name in layers)
        or not isinstance(lineage, list)
        or not all(_is_step(step) for step in lineage)
    ):
        raise problem
    try:
        pattern = read_pattern(record)
    except PatternError as error:
        raise CheckpointError(f"{where}: 'sparsity': {error}") from error
    if pattern is None and layers:
        raise problem
    return record


def _is_step(step: object) -> bool:
    """Whether an entry of a lineage has the structure that `with_step` writes."""
    return isinstance(step, dict) and all(
        isinstance(step.get(name, kind()), kind)
        for name, kind in {"step": str, "from": str, "sparsebert": str, "arguments": dict}.items()
    )


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
    own, as JSON values. ``pattern``, ``method`` and ``layers`` (canonical names), if passed,
    replace those of the record.
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


def trained_last(lineage: Sequence[Mapping[str, Any]]) -> bool:
    """Whether fine-tuning was the last step of a lineage.

    Only then are the scores in training.json those of this folder; after packing or pruning they
    are those of the model that it was made from.
    """
    return bool(lineage) and lineage[-1].get("step") == "finetune"


def null_threshold(sparsity: Mapping[str, Any] | None) -> float | None:
    """By how much "no answer" must beat the best answer to be given, for models trained for that.

    A difference of logits, from the last fine-tuning in the ``sparsity`` record; None without a
    fine-tuning, or if it was not on questions that may have no answer.
    """
    arguments = _last_finetuning(sparsity)
    if arguments.get("task") != "squad_v2":
        return None
    threshold = arguments.get("threshold", 0.0)
    return float(threshold) if isinstance(threshold, int | float) else 0.0


def trained_length(sparsity: Mapping[str, Any] | None) -> int | None:
    """The length limit of the last fine-tuning in a ``sparsity`` record; None without one."""
    length = _last_finetuning(sparsity).get("max_length")
    return length if type(length) is int and length > 0 else None


def _last_finetuning(sparsity: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of the last fine-tuning in a record; empty without one."""
    for step in reversed((sparsity or {}).get("lineage", [])):
        if step.get("step") == "finetune":
            return step.get("arguments") or {}
    return {}
