"""training.json and evaluation.json, the records of a fine-tuning run and of its model's scores.

They may be hostile: every value is validated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.model_files import EVALUATION_NAME, TRAINING_NAME
from sparsebert.checkpoint.sparsity import read_sparsity, trained_last
from sparsebert.diagnosis.report import Check, Problem, Severity
from sparsebert.errors import CheckpointError

_LARGEST = 16 << 20  # bytes; a record has about 100 points and takes 50 KB
_MOST_POINTS = 100_000

UNREADABLE_RECORD = Problem(
    "unreadable-record",
    Severity.ERROR,
    f"remove the file ({TRAINING_NAME} is written by `finetune` only, {EVALUATION_NAME} by "
    "`evaluate`), or use the one that belongs to this model.",
)

Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Point:
    """The values logged at one step; None where one was not logged."""

    step: int
    loss: float | None
    learning_rate: float | None
    grad_norm: float | None


@dataclass(frozen=True)
class TrainingRecord:
    """A fine-tuning run and the scores of the model in its folder.

    ``trained_scores`` are those at the end of the training; ``scores`` are the model's own: those
    of evaluation.json, else those of the training unless the model was packed or pruned since then.
    Both map split to metric to percent; ``rows`` maps split to count.
    """

    path: Path
    arguments: Mapping[str, Any]
    max_length: int | None
    rows: Mapping[str, int]
    steps: int
    history: tuple[Point, ...]
    trained_scores: Scores
    scores: Scores
    notes: tuple[str, ...]

    def number(self, name: str) -> float | None:
        """An argument, if it is a finite number; else None."""
        value = self.arguments.get(name)
        number = _as_float(value) if _is_number(value) else math.inf
        return number if math.isfinite(number) else None

    def word(self, name: str) -> str | None:
        """An argument, if it is a text; else None."""
        value = self.arguments.get(name)
        return value if isinstance(value, str) else None


def read_training(folder: Path) -> TrainingRecord | None:
    """The record of a model folder, None if there is none. CheckpointError if it is damaged."""
    path = folder / TRAINING_NAME
    if not path.is_file():
        return None
    record = _read(path)
    history = _of_kind(record, "history", list, path)
    if len(history) > _MOST_POINTS:
        raise CheckpointError(
            f"{path}: 'history' has {len(history):,} entries; at most {_MOST_POINTS:,} are read."
        )
    length = record.get("max_length")
    trained_scores, trained_rows, notes = _scored(record, path)
    scores, rows = trained_scores, trained_rows
    evaluation = folder / EVALUATION_NAME
    if evaluation.is_file():
        scores, rows, notes = _scored(_read(evaluation), evaluation)
    elif not _trained_last(folder):
        scores, notes = {}, ()
    return TrainingRecord(
        path=path,
        arguments=_of_kind(record, "arguments", dict, path),
        max_length=length if type(length) is int and length > 0 else None,
        rows={**trained_rows, **rows},
        steps=int(_number(record.get("steps", 0), "steps", path) or 0),
        history=tuple(_point(entry, path) for entry in history),
        trained_scores=trained_scores,
        scores=scores,
        notes=notes,
    )


def _read(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size > _LARGEST:
        raise CheckpointError(
            f"{path} is {size >> 20} MiB, far larger than any record that sparsebert writes."
        )
    return read_object(path)


def _scored(record: dict[str, Any], path: Path) -> tuple[Scores, dict[str, int], tuple[str, ...]]:
    """Scores, rows of each split, and notes, which both records have."""
    rows = _of_kind(record, "rows", dict, path)
    return (
        _scores(record.get("scores", {}), path),
        {name: count for name, count in rows.items() if type(count) is int and count >= 0},
        tuple(str(note) for note in _of_kind(record, "notes", list, path)),
    )


def _trained_last(folder: Path) -> bool:
    where = folder / CONFIG_NAME
    try:
        sparsity = read_sparsity(read_object(where), where)
    except CheckpointError:  # opening the model says what is wrong with it
        return False
    return trained_last((sparsity or {}).get("lineage", []))


def unreadable(folder: Path, error: CheckpointError) -> Check:
    """The check of a record that `read_training` refused."""
    found = UNREADABLE_RECORD.at(folder, str(error))
    return Check.of("training", "record", "not read", [found])


def _point(entry: Any, path: Path) -> Point:
    if not isinstance(entry, dict):
        raise CheckpointError(f"{path}: 'history' must be a list of objects.")
    read = {
        name: _number(entry.get(name), f"history {name}", path)
        for name in ("step", "loss", "learning_rate", "grad_norm")
    }
    step = read["step"]
    finite = step is not None and math.isfinite(step)
    return Point(
        int(step) if finite and step is not None else 0,
        read["loss"],
        read["learning_rate"],
        read["grad_norm"],
    )


def _scores(value: Any, path: Path) -> Scores:
    problem = CheckpointError(f"{path}: 'scores' must map splits to metrics to percentages.")
    if not isinstance(value, dict) or not all(isinstance(each, dict) for each in value.values()):
        raise problem
    for metrics in value.values():
        if not all(_is_number(score) for score in metrics.values()):
            raise problem
    return {
        split: {name: _as_float(score) for name, score in metrics.items()}
        for split, metrics in value.items()
        if metrics
    }


def _of_kind(record: dict[str, Any], key: str, kind: type, path: Path) -> Any:
    value = record.get(key, kind())
    if not isinstance(value, kind):
        named = "an object" if kind is dict else "a list"
        raise CheckpointError(f"{path}: '{key}' must be {named}, not {type(value).__name__}.")
    return value


def _number(value: Any, key: str, path: Path) -> float | None:
    if value is None:
        return None
    if not _is_number(value):
        raise CheckpointError(f"{path}: {key} must be a number, not {type(value).__name__}.")
    return _as_float(value)


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # integers in JSON have no limit
        return math.inf


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
