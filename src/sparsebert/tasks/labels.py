"""Matching a task's labels to those of a model's head."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from sparsebert.errors import DataError
from sparsebert.tasks.columns import as_number, is_whole_number
from sparsebert.tasks.table import Kind, Task

OUTSIDE = "O"
"""The label of words that are not part of an entity."""

MOST_LABELS = 1000  # more distinct values than this are ids or scores, not classes
_MANY_NUMBERS = 20  # more integer labels than this may be quantities rather than classes


def are_unnamed(labels: Sequence[str]) -> bool:
    """True for ``LABEL_0``, ``LABEL_1``, ...: transformers' default names."""
    return all(re.fullmatch(r"LABEL_\d+", label) for label in labels)


def data_labels(
    model_labels: Sequence[str], named: tuple[str, ...], values: Collection[str]
) -> tuple[str, ...]:
    """A model's labels; those without names as the data ``named`` them, or as the numbers in it."""
    if are_unnamed(model_labels):
        if named:
            return named
        if all(map(is_whole_number, values)):
            return tuple(str(number) for number in range(len(model_labels)))
    return tuple(model_labels)


def sorted_labels(distinct: Collection[str]) -> tuple[str, ...]:
    """Labels in the order of their indices: as numbers if all are, else by name."""
    return tuple(sorted(distinct, key=int if all(map(is_whole_number, distinct)) else None))


def check_count(distinct: Collection[str], column: str, source: str, hint: str = "") -> None:
    """DataError if a column has so many different values that it cannot be the label column."""
    if len(distinct) > MOST_LABELS:
        raise DataError(
            f"{source}: the column '{column}' holds {len(distinct)} different labels, too many for "
            f"classes.{hint} If another column has the labels, name it with --label-column "
            "(label_column=)."
        )


def check_among(named: Sequence[str], labels: Sequence[str], source: str) -> None:
    """DataError if the data names labels that a model does not have."""
    unknown = [name for name in named if name not in labels]
    if unknown:
        raise DataError(
            f"{source}: the labels {', '.join(unknown[:8])} are not among the model's "
            f"({', '.join(labels[:20])})."
        )


def label_order(
    task: Task, model_labels: Sequence[str]
) -> tuple[npt.NDArray[np.int64], str | None]:
    """The index in the model's head of each label of a classification task.

    Returns ``order`` with ``order[task label] = model label``, and a note for the user if named
    labels had to be matched by position. Names are compared exactly, then ignoring case and the
    spaces, ``-`` and ``_`` between letters or digits. If the two sets of names still differ, labels
    are matched by position. Raises DataError if the counts differ, or if a name that both have is
    at different positions.
    """
    if len(model_labels) != len(task.labels):
        raise DataError(
            f"the task {task.name} has {len(task.labels)} labels ({', '.join(task.labels)}) and "
            f"the model's head has {len(model_labels)} ({', '.join(model_labels)}): fine-tune it "
            "on the task first."
        )
    for spelling in (str, _plain):
        indices = {spelling(name): index for index, name in enumerate(model_labels)}
        names = [spelling(name) for name in task.labels]
        if len(indices) == len(names) and set(names) == set(indices):
            return np.array([indices[name] for name in names], np.int64), None
    model_names = [_plain(name) for name in model_labels]
    for index, name in enumerate(map(_plain, task.labels)):
        if name in model_names and model_names[index] != name:
            raise DataError(
                f"the model's labels ({', '.join(model_labels)}) and those of {task.name} "
                f"({', '.join(task.labels)}) only partly agree: '{task.labels[index]}' is at "
                "another position. Use the same names in the model's config.json (id2label)."
            )
    note = None
    if not are_unnamed(model_labels):
        note = (
            f"the names of the model's labels ({', '.join(model_labels)}) differ from those of "
            f"{task.name} ({', '.join(task.labels)}): they were matched by position."
        )
    return np.arange(len(task.labels)), note


def same_labels(task: Task, model_labels: Sequence[str]) -> bool:
    """True if a head with these labels fits the task: the names match, or it has no names."""
    if len(model_labels) != len(task.labels):
        return False
    same = {_plain(name) for name in task.labels} == {_plain(name) for name in model_labels}
    return same or are_unnamed(model_labels)


def near_equal(labels: Sequence[str]) -> list[tuple[str, ...]]:
    """Groups of labels that differ only in case, whitespace or how a number is written."""
    groups: dict[object, list[str]] = defaultdict(list)
    for label in labels:
        text = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
        number = as_number(text)
        groups[text if number is None or number != number else number].append(label)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def look_like_numbers(labels: Sequence[str]) -> bool:
    """Whether labels may be quantities rather than classes: fractions, or many integers."""
    if any(as_number(label) is None for label in labels):
        return False
    return len(labels) > _MANY_NUMBERS or not all(map(is_whole_number, labels))


def label_notes(task: Task) -> list[str]:
    """Notes for the user on a custom task's classes before training on them."""
    notes = []
    if task.kind is Kind.TOKENS and are_mixed(task.labels):
        notes.append(
            "some labels begin with B- or I- and others do not, so all are read as whole names: "
            "write all of them the same way."
        )
    for group in near_equal(task.labels):
        names = ", ".join(map(repr, group))
        notes.append(
            f"the labels {names} are {len(group)} separate classes: if they mean the same, write "
            "them the same way."
        )
    if look_like_numbers(task.labels):
        notes.append(
            f"the labels are numbers and are taken as {len(task.labels)} classes: if they are "
            "scores to predict, pass --regression (regression=True)."
        )
    return notes


def split_tag(label: str) -> tuple[str, str]:
    """``B-PER`` as B and PER; the prefix is "" if the label has none."""
    found = re.fullmatch(r"([BIESLU])-(.+)", label)
    return (found[1], found[2]) if found else ("", label)


def prefixed(labels: Sequence[str]) -> bool:
    """Whether all labels except O have an entity prefix (BIO, BIOES, BILOU or IO)."""
    kinds = [label for label in labels if label != OUTSIDE]
    return bool(kinds) and all(split_tag(label)[0] for label in kinds)


def are_mixed(labels: Sequence[str]) -> bool:
    """Whether some but not all labels have a prefix B- or I-."""
    return not prefixed(labels) and any(split_tag(label)[0] in ("B", "I") for label in labels)


def _plain(name: str) -> str:
    """A name without case and separators; a sign, as in ``-1`` and ``A-``, is part of the name."""
    return re.sub(r"(?<=\w)[-_ ](?=\w)", "", " ".join(name.lower().split()))
