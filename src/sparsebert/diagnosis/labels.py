"""Labels: missing, outside the set, hidden, unbalanced; targets that are not numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sparsebert.diagnosis.report import Check, Finding, Problem, Severity, plural, share
from sparsebert.diagnosis.tables import GROUP, UNUSABLE_DATA, Split
from sparsebert.diagnosis.words import check_words
from sparsebert.errors import DataError
from sparsebert.tasks.columns import (
    class_indices,
    label_names,
    labelled,
    number_values,
    show_label,
    show_labels,
    wrong_numbers,
)
from sparsebert.tasks.label_sets import label_sets
from sparsebert.tasks.labels import look_like_numbers, near_equal
from sparsebert.tasks.table import CUSTOM, Kind, Task

_RARE = 0.1  # of an equal share: a class with fewer rows is rare

MISSING_LABELS = Problem(
    "missing-labels", Severity.ERROR, "label these rows, or remove them from the file."
)
LABELS_OUTSIDE = Problem(
    "labels-outside-set",
    Severity.ERROR,
    "correct these labels, or remove the rows (benchmarks have fixed labels; use --task custom for "
    "labels of your own).",
)
HIDDEN_LABELS = Problem(
    "hidden-labels",
    Severity.ERROR,
    "this is a benchmark's test split, whose labels are kept secret: use its validation split.",
)
WRONG_TARGETS = Problem(
    "wrong-targets", Severity.ERROR, "correct these targets, or remove the rows from the file."
)
ONE_LABEL = Problem(
    "one-label",
    Severity.ERROR,
    "nothing can be learned or scored if all rows are labelled alike: if the file was sorted by "
    "label and then cut, take rows from all of it.",
)
UNBALANCED_LABELS = Problem(
    "unbalanced-labels",
    Severity.WARNING,
    "accuracy hides what happens to a rare class: look at F1 or Matthews' correlation, compare "
    "accuracy with the share of the largest class, and collect more rows of the rare class.",
)
NEAR_EQUAL_LABELS = Problem(
    "near-equal-labels",
    Severity.WARNING,
    "each is a class of its own: if they mean the same, write them the same way.",
)
NUMBER_LABELS = Problem(
    "number-labels",
    Severity.NOTE,
    "if they are scores to predict rather than class names, pass --regression.",
)
UNSEEN_LABELS = Problem(
    "unseen-labels",
    Severity.ERROR,
    "a label that occurs in no training row cannot be learned: split the rows again, with all "
    "classes in both parts.",
)


def check_labels(task: Task, splits: list[Split]) -> Iterator[Check]:
    """A check of each split's labels.

    Question answering has answers instead (see `answers`), and retrieval has documents (see
    `documents`).
    """
    if task.kind in (Kind.QUESTION, Kind.RETRIEVAL):
        return
    if task.kind is Kind.TOKENS:
        yield from check_words(task, splits)
        return
    if task.kind is Kind.LABEL_SETS:
        yield from _check_label_sets(task, splits)
        return
    seen: dict[str, set[int]] = {}
    for split in splits:
        there = labelled(split.table, task.label_column)
        rows = np.flatnonzero(there)
        findings = [_missing(split, there)]
        try:
            table = split.table.filter(there)
            if task.kind is Kind.CLASSIFICATION:
                names = label_names(table, task.label_column, split.source)
                indices = class_indices(names, task)
                said = _shares(task, indices)
                findings += _class_findings(task, split, names, indices, rows)
                if split is splits[0] and task.name == CUSTOM:
                    findings += _spellings(task, split, names)
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


def _check_label_sets(task: Task, splits: list[Split]) -> Iterator[Check]:
    """For rows with several labels: whether they can be read, and occur in training rows."""
    known: set[int] | None = None
    for split in splits:
        try:
            flags = label_sets(split.table, task, split.source)
        except DataError as error:
            findings: list[Finding | None] = [UNUSABLE_DATA.at(split.name, str(error))]
            yield Check.of(GROUP, f"labels of {split.name}", "not read", findings)
            continue
        indices = np.nonzero(flags)[1]
        findings = []
        if not indices.size:
            findings.append(ONE_LABEL.at(split.name, "no row has a label."))
        if split.name == "train":
            known = set(indices.tolist())
        elif known is not None:
            findings.append(_unseen(task, split, indices, known))
        none = int(np.count_nonzero(~flags.any(axis=1)))
        each = len(indices) / max(len(split), 1)
        said = f"{each:.2f} per row, {share(none, len(split))} rows have none"
        yield Check.of(
            GROUP, f"labels of {split.name}", f"{_shares(task, indices)}; {said}", findings
        )


def majority(task: Task, split: Split) -> tuple[str, int, int] | None:
    """The most frequent label, its count and the total; None if labels are unusable."""
    try:
        names = label_names(split.table, task.label_column, split.source)
    except DataError:
        return None
    indices = class_indices(names, task)
    if not indices.size or (indices < 0).any():
        return None
    label, count = Counter(indices.tolist()).most_common(1)[0]
    return task.labels[label], count, len(indices)


def _missing(split: Split, there: npt.NDArray[np.bool_]) -> Finding | None:
    missing = np.flatnonzero(~there)
    return MISSING_LABELS.among(split.name, missing, len(split), "rows have no label.")


def _class_findings(
    task: Task,
    split: Split,
    names: list[str],
    indices: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
) -> list[Finding | None]:
    outside = np.flatnonzero(indices < 0)
    if outside.size == len(indices) and len(indices) and set(names) == {"-1"}:
        return [
            HIDDEN_LABELS.at(
                split.name,
                f"all {plural(len(indices), 'label')} are -1.",
                count=len(indices),
                total=len(split),
            )
        ]
    found = [
        LABELS_OUTSIDE.among(
            split.name,
            outside,
            len(split),
            f"labels are not among {show_labels(task)}.",
            lambda at: f"row {rows[at] + 1}: {show_label(names[at])}",
        )
    ]
    counts = np.bincount(indices[indices >= 0], minlength=len(task.labels))
    there = np.flatnonzero(counts)
    if there.size == 1:
        found.append(ONE_LABEL.at(split.name, f"every valid label is '{task.labels[there[0]]}'."))
    elif there.size:
        fair = counts.sum() / len(task.labels)
        rare = [index for index in there if counts[index] < _RARE * fair]
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
                        f"{task.labels[index]}: {share(int(counts[index]), int(counts.sum()))}"
                        for index in rare
                    ),
                )
            )
    return found


def _spellings(task: Task, split: Split, names: list[str]) -> list[Finding]:
    """Labels that may mean the same class, or may be numbers."""
    counts = Counter(names)
    found = []
    groups = near_equal(task.labels)
    if groups:
        found.append(
            NEAR_EQUAL_LABELS.at(
                split.name,
                f"{plural(len(groups), 'group')} of labels differ only in case, whitespace or the "
                "way a number is written.",
                count=len(groups),
                total=len(task.labels),
                examples=(
                    ", ".join(f"{name!r} ({plural(counts[name], 'row')})" for name in group)
                    for group in groups
                ),
            )
        )
    if look_like_numbers(task.labels):
        found.append(
            NUMBER_LABELS.at(
                split.name, f"all {len(task.labels)} labels are numbers, but are read as classes."
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
        f"{plural(len(unseen), 'label')} of this split "
        f"{'occurs' if len(unseen) == 1 else 'occur'} in no training row.",
        count=len(unseen),
        total=len(task.labels),
        examples=(f"{task.labels[index]}: {plural(counts[index], 'row')}" for index in unseen),
    )


def _target_findings(
    task: Task, split: Split, targets: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]
) -> list[Finding | None]:
    if task.label_range and targets.size and np.all(targets == -1):
        return [
            HIDDEN_LABELS.at(
                split.name,
                f"all {plural(len(targets), 'target')} are -1.",
                count=len(targets),
                total=len(split),
            )
        ]
    limits = "finite numbers"
    if task.label_range:
        limits = "numbers from {:g} to {:g}".format(*task.label_range)
    wrong = np.flatnonzero(wrong_numbers(targets, task.label_range))
    found = [
        WRONG_TARGETS.among(
            split.name,
            wrong,
            len(split),
            f"targets are not {limits}.",
            lambda at: f"row {rows[at] + 1}: {float(targets[at]):g}",
        )
    ]
    right = np.delete(targets, wrong)
    if right.size > 1 and np.all(right == right[0]):
        found.append(ONE_LABEL.at(split.name, f"every valid target is {float(right[0]):g}."))
    return found


def _shares(task: Task, indices: npt.NDArray[np.int64]) -> str:
    counts = np.bincount(indices[indices >= 0], minlength=len(task.labels))
    total = max(int(counts.sum()), 1)
    order = np.argsort(-counts, kind="stable")[:5]
    said = ", ".join(f"{task.labels[index]} {counts[index] / total:.1%}" for index in order)
    return said + (f" and {len(counts) - 5} more" if len(counts) > 5 else "")


def _range(targets: npt.NDArray[np.float32]) -> str:
    right = targets[np.isfinite(targets)]
    if not right.size:
        return "no finite targets"
    return f"{right.min():g} to {right.max():g}, mean {right.mean(dtype=np.float64):.3g}"
