"""Examples: empty ones, duplicates, contradictory labels, and training examples in validation.

Texts that differ only in case and whitespace count as equal, as they are to an uncased model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from sparsebert.diagnosis.report import Check, Finding, Problem, Severity, plural, share
from sparsebert.diagnosis.tables import GROUP, Split
from sparsebert.tasks.columns import show
from sparsebert.tasks.table import Kind, Task

_MANY = 0.01  # share of examples; fewer move a score by no more than a point

MISSING_TEXTS = Problem(
    "missing-texts", Severity.ERROR, "fill in the texts that are null, or remove the rows."
)
EMPTY_TEXTS = Problem(
    "empty-texts",
    Severity.WARNING,
    "the model sees only its special tokens here: fill in the texts, or remove the rows.",
)
DUPLICATE_ROWS = Problem(
    "duplicate-rows",
    Severity.WARNING,
    "repeated rows weigh more in training and in the score: keep one of each.",
)
CONTRADICTORY_LABELS = Problem(
    "contradictory-labels",
    Severity.WARNING,
    "no model can learn this, and it caps the score: decide on one label, or remove these rows.",
)
TRAIN_IN_VALIDATION = Problem(
    "train-in-validation",
    Severity.WARNING,
    "the model has seen these rows, so the score flatters it: remove them from one of the two "
    "splits.",
)

Key = tuple[str, ...]


def check_examples(task: Task, splits: list[Split]) -> Iterator[Check]:
    """The checks of each split, and of each validation split against the training examples."""
    keys = {split.name: [_key(split, row) for row in range(len(split))] for split in splits}
    for split in splits:
        rows: dict[Key, list[int]] = defaultdict(list)
        for row, key in enumerate(keys[split.name]):
            if key is not None:
                rows[key].append(row)
        findings = [_missing(split), _empty(split)]
        findings += _repeated(split, _labels(task, split), rows)
        seen = f"{plural(len(rows), 'distinct row')} of {len(split):,}"
        yield Check.of(GROUP, f"rows of {split.name}", seen, findings)
    train = next((split for split in splits if split.name == "train"), None)
    if train is None:
        return
    indices = {key: row for row, key in reversed(list(enumerate(keys["train"]))) if key}
    for split in splits:
        if split is not train:
            found = _leaked(split, keys[split.name], indices)
            seen = f"compared with {plural(len(train), 'training row')}"
            yield Check.of(GROUP, f"{split.name} beside train", seen, [found])


def _key(split: Split, row: int) -> Key | None:
    """What duplicates have in common; None for an example whose text is missing or empty."""
    texts = split.texts(row)
    plain = tuple(" ".join(text.split()).casefold() for text in texts if text is not None)
    return plain if len(plain) == len(texts) and any(plain) else None


def _labels(task: Task, split: Split) -> list[Any] | None:
    """Labels to compare; None for questions, which may have several answers, and for queries."""
    if task.kind in (Kind.QUESTION, Kind.RETRIEVAL):
        return None
    if task.flag_columns:
        flags: list[Any] = split.table.select(list(task.flag_columns)).to_pylist()
        return flags
    values: list[Any] = split.table.column(task.label_column).to_pylist()
    if task.kind is Kind.LABEL_SETS:  # a row's labels have no order
        return [sorted(value, key=repr) if isinstance(value, list) else value for value in values]
    return values


def _missing(split: Split) -> Finding | None:
    rows = [row for row in range(len(split)) if None in split.texts(row)]
    return MISSING_TEXTS.among(split.name, rows, len(split), "rows lack a text.")


def _empty(split: Split) -> Finding | None:
    rows = [
        row
        for row in range(len(split))
        if any(text is not None and not text.strip() for text in split.texts(row))
    ]
    return EMPTY_TEXTS.among(split.name, rows, len(split), "rows have an empty text.")


def _repeated(split: Split, labels: list[Any] | None, rows: dict[Key, list[int]]) -> list[Finding]:
    groups = [indices for indices in rows.values() if len(indices) > 1]
    contradictory = [
        indices for indices in groups if labels and len({repr(labels[row]) for row in indices}) > 1
    ]
    found = []
    repeated = sum(len(indices) - 1 for indices in groups)
    if repeated:
        found.append(
            DUPLICATE_ROWS.at(
                split.name,
                f"{share(repeated, len(split))} rows repeat an earlier one.",
                count=repeated,
                total=len(split),
                examples=(_group(split, indices) for indices in groups),
                minor=repeated < _MANY * len(split),
            )
        )
    if contradictory:
        count = sum(map(len, contradictory))
        found.append(
            CONTRADICTORY_LABELS.at(
                split.name,
                f"{share(count, len(split))} rows have the same texts as another row, but a "
                "different label.",
                count=count,
                total=len(split),
                examples=(_group(split, indices, labels) for indices in contradictory),
                minor=count < _MANY * len(split),
            )
        )
    return found


def _leaked(split: Split, keys: list[Key | None], train: dict[Key, int]) -> Finding | None:
    rows = {row: train[key] for row, key in enumerate(keys) if key in train}
    return TRAIN_IN_VALIDATION.among(
        split.name,
        rows,
        len(split),
        "rows are also in train.",
        lambda row: f"row {row + 1} = train row {rows[row] + 1}: {_shown(split, row)}",
        minor=_MANY,
    )


def _group(split: Split, indices: list[int], labels: list[Any] | None = None) -> str:
    named = [
        f"{row + 1} ({_label(labels[row])})" if labels is not None else str(row + 1)
        for row in indices[:4]
    ]
    more = ", ..." if len(indices) > 4 else ""
    return f"rows {', '.join(named)}{more}: {_shown(split, indices[0])}"


def _label(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else show(value)


def _shown(split: Split, row: int) -> str:
    return show(split.texts(row)[0])
