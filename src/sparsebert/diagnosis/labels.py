"""Labels: missing, outside the set, hidden, unbalanced; targets that are no numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsebert.diagnosis.finding import Check, Finding, Kind, Severity, plural, share
from sparsebert.diagnosis.tables import GROUP, UNUSABLE_DATA, Split
from sparsebert.errors import DataError
from sparsebert.tasks.columns import (
    class_indices,
    label_values,
    number_values,
    show,
    wrong_numbers,
)
from sparsebert.tasks.table import Kind as TaskKind
from sparsebert.tasks.table import Task

_RARE = 0.1  # a class with less than this share of what it would have if all were equal

MISSING_LABELS = Kind(
    "missing-labels", Severity.ERROR, "label these rows, or remove them from the file."
)
LABELS_OUTSIDE = Kind(
    "labels-outside-set",
    Severity.ERROR,
    "correct these labels, or remove the rows; the task's labels are fixed, your own go with "
    "--task custom.",
)
HIDDEN_LABELS = Kind(
    "hidden-labels",
    Severity.ERROR,
    "this is a benchmark's test split, whose labels are kept secret: use its validation split.",
)
WRONG_TARGETS = Kind(
    "wrong-targets", Severity.ERROR, "correct these targets, or remove the rows from the file."
)
ONE_LABEL = Kind(
    "one-label",
    Severity.ERROR,
    "nothing can be learnt or scored where every row has the same label: the file may have been "
    "sorted by label and cut, take rows from all of it.",
)
UNBALANCED_LABELS = Kind(
    "unbalanced-labels",
    Severity.WARNING,
    "accuracy hides what happens to the rare class: look at F1 or Matthews' correlation, and "
    "compare with the share of the largest class; collect more rows of the rare one.",
)
UNSEEN_LABELS = Kind(
    "unseen-labels",
    Severity.ERROR,
    "a label that no training row has can never be learnt: split the rows anew, all classes in "
    "both.",
)


def check_labels(task: Task, splits: list[Split]) -> Iterator[Check]:
    """A check of each split's labels. Questions have answers instead: see `answers`."""
    if task.kind is TaskKind.QUESTION:
        return
    seen: dict[str, set[int]] = {}
    for split in splits:
        column = split.table.column(task.label_column)
        labelled = np.asarray(column.is_valid().to_numpy(), bool)
        rows = np.flatnonzero(labelled)
        findings = [_missing(split, labelled)]
        try:
            table = split.table.filter(column.is_valid())
            if task.kind is TaskKind.CLASSIFICATION:
                values = label_values(table, task.label_column, split.source)
                indices = class_indices(values, task.labels)
                said = _shares(task, indices)
                findings += _class_findings(task, split, values, indices, rows)
                seen[split.name] = set(indices[indices >= 0].tolist())
                if split.name != "train" and "train" in seen:
                    findings.append(_unseen(task, split, indices, seen["train"]))
            else:
                targets = number_values(table, task.label_column, split.source)
                said = _range(targets)
                findings += _target_findings(task, split, targets, rows)
        except DataError as error:
            findings, said = [UNUSABLE_DATA.at(split.name, str(error))], "not read"
        yield Check.of(GROUP, f"labels of {split.name}", said, findings)


def majority(task: Task, split: Split) -> tuple[str, int, int] | None:
    """The most frequent label of a split, its rows and all rows; None where labels are no use."""
    try:
        values = label_values(split.table, task.label_column, split.source)
    except DataError:
        return None
    indices = class_indices(values, task.labels)
    if not indices.size or (indices < 0).any():
        return None
    label, count = Counter(indices.tolist()).most_common(1)[0]
    return task.labels[label], count, len(indices)


def _missing(split: Split, labelled: npt.NDArray[np.bool_]) -> Finding | None:
    missing = np.flatnonzero(~labelled)
    if not missing.size:
        return None
    return MISSING_LABELS.at(
        split.name,
        f"{share(missing.size, len(split))} rows have no label.",
        count=missing.size,
        total=len(split),
        examples=(f"row {row + 1}" for row in missing),
    )


def _class_findings(
    task: Task,
    split: Split,
    values: Any,
    indices: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
) -> list[Finding]:
    outside = np.flatnonzero(indices < 0)
    if outside.size == len(indices) and len(indices) and set(map(str, values)) == {"-1"}:
        return [
            HIDDEN_LABELS.at(
                split.name,
                f"all {plural(len(indices), 'label')} are -1.",
                count=len(indices),
                total=len(split),
            )
        ]
    found = []
    if outside.size:
        found.append(
            LABELS_OUTSIDE.at(
                split.name,
                f"{share(outside.size, len(split))} labels are none of {_named(task)}.",
                count=outside.size,
                total=len(split),
                examples=(f"row {rows[at] + 1}: {show(_plain(values[at]))}" for at in outside),
            )
        )
    counts = np.bincount(indices[indices >= 0], minlength=len(task.labels))
    there = np.flatnonzero(counts)
    if there.size == 1:
        found.append(
            ONE_LABEL.at(split.name, f"every row has the label '{task.labels[there[0]]}'.")
        )
    elif there.size:
        fair = counts.sum() / len(task.labels)
        rare = [place for place in there if counts[place] < _RARE * fair]
        largest = int(np.argmax(counts))
        if rare:
            found.append(
                UNBALANCED_LABELS.at(
                    split.name,
                    f"{plural(len(rare), 'label')} of {len(task.labels)} "
                    f"{'has' if len(rare) == 1 else 'have'} less than a tenth of an equal share; "
                    f"always answering '{task.labels[largest]}' scores "
                    f"{100 * counts[largest] / counts.sum():.1f} % accuracy.",
                    count=len(rare),
                    total=len(task.labels),
                    examples=(
                        f"{task.labels[place]}: {share(int(counts[place]), int(counts.sum()))}"
                        for place in rare
                    ),
                )
            )
    return found


def _unseen(
    task: Task, split: Split, indices: npt.NDArray[np.int64], known: set[int]
) -> Finding | None:
    counts = Counter(indices[indices >= 0].tolist())
    unseen = sorted(set(counts) - known)
    if not unseen:
        return None
    return UNSEEN_LABELS.at(
        split.name,
        f"{plural(len(unseen), 'label')} of this split no training row has.",
        count=len(unseen),
        total=len(task.labels),
        examples=(f"{task.labels[place]}: {plural(counts[place], 'row')}" for place in unseen),
    )


def _target_findings(
    task: Task, split: Split, targets: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]
) -> list[Finding]:
    if task.label_range and targets.size and np.all(targets == -1):
        return [
            HIDDEN_LABELS.at(
                split.name,
                f"all {plural(len(targets), 'target')} are -1.",
                count=len(targets),
                total=len(split),
            )
        ]
    found = []
    wrong = np.flatnonzero(wrong_numbers(targets, task.label_range))
    if wrong.size:
        limits = (
            "from {:g} to {:g}".format(*task.label_range) if task.label_range else "finite numbers"
        )
        found.append(
            WRONG_TARGETS.at(
                split.name,
                f"{share(wrong.size, len(split))} targets are not {limits}.",
                count=wrong.size,
                total=len(split),
                examples=(f"row {rows[at] + 1}: {float(targets[at]):g}" for at in wrong),
            )
        )
    right = np.delete(targets, wrong)
    if right.size > 1 and np.all(right == right[0]):
        found.append(ONE_LABEL.at(split.name, f"every row has the target {float(right[0]):g}."))
    return found


def _shares(task: Task, indices: npt.NDArray[np.int64]) -> str:
    counts = np.bincount(indices[indices >= 0], minlength=len(task.labels))
    total = max(int(counts.sum()), 1)
    order = np.argsort(-counts, kind="stable")[:5]
    said = ", ".join(f"{task.labels[place]} {counts[place] / total:.1%}" for place in order)
    return said + (f" and {len(counts) - 5} more" if len(counts) > 5 else "")


def _range(targets: npt.NDArray[np.float32]) -> str:
    right = targets[np.isfinite(targets)]
    if not right.size:
        return "no numbers"
    return f"{right.min():g} to {right.max():g}, mean {right.mean(dtype=np.float64):.3g}"


def _named(task: Task) -> str:
    named = ", ".join(f"{place} {label}" for place, label in enumerate(task.labels[:8]))
    return named + (", ..." if len(task.labels) > 8 else "")


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, np.integer) else value
