"""The task that a name and the data stand for.

The benchmark tasks are in a table (`sparsebert.tasks.table`). What another one is, its data says:
a function makes a `Task` of its columns and labels, and a new one joins by a line here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sparsebert.errors import DataError, reading
from sparsebert.tasks.custom import custom_of_table
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.examples import read_split
from sparsebert.tasks.files import WORD_TYPES
from sparsebert.tasks.ner import NER_LENGTH, ner_of_table
from sparsebert.tasks.pairs import pairs_of_table
from sparsebert.tasks.reading import RawTable
from sparsebert.tasks.retrieval import retrieval_of_table
from sparsebert.tasks.table import (
    CUSTOM,
    EMBEDDING_LENGTH,
    NER,
    PAIRS,
    RETRIEVAL,
    Kind,
    Task,
    get_task,
    is_own,
    task_name,
)

OfTable = Callable[[RawTable, Sequence[str] | None, DataOptions | None], Task]

_OF_TABLE: dict[str, OfTable] = {
    CUSTOM: custom_of_table,
    NER: ner_of_table,
    PAIRS: pairs_of_table,
    RETRIEVAL: retrieval_of_table,
}

UNREAD = Task(CUSTOM, CUSTOM, Kind.CLASSIFICATION, (), ("accuracy",), "accuracy")
"""A task while its columns are not known, to read a table with."""

_UNREAD = {
    NER: replace(UNREAD, name=NER, kind=Kind.TOKENS, file_types=WORD_TYPES, max_length=NER_LENGTH),
    PAIRS: replace(UNREAD, name=PAIRS, kind=Kind.PAIRS, max_length=EMBEDDING_LENGTH),
    RETRIEVAL: replace(UNREAD, name=RETRIEVAL, kind=Kind.RETRIEVAL, max_length=EMBEDDING_LENGTH),
}


def unread_task(name: str) -> Task:
    """What is known of the task of this name without its data: which files it reads."""
    return _UNREAD.get(task_name(name), UNREAD) if is_own(name) else get_task(name)


def reading_task(name: str | None) -> Task | None:
    """By which task texts without labels are read; None where a file's own columns say it all."""
    if name is None:
        return None
    return _UNREAD.get(task_name(name)) if is_own(name) else get_task(name)


def find_task(
    name: str,
    data: str | Path | None,
    *,
    split: str = "train",
    options: DataOptions | None = None,
) -> Task:
    """The task of this name, if need be the one that ``data`` describes. Raises DataError."""
    if is_own(name):
        return own_task(name, data, split=split, options=options)
    return _known_task(get_task(name), options or DataOptions())


def own_task(
    name: str,
    data: str | Path | None,
    *,
    split: str = "train",
    labels: Sequence[str] | None = None,
    options: DataOptions | None = None,
) -> Task:
    """The task that ``data`` describes; the label set is that of ``split``, or the given one.

    ``labels`` are those of a model that is already trained; an empty sequence says that the model
    is a regression. Raises DataError if the columns or labels do not make a task.
    """
    if data is None:
        raise DataError(f"the task {task_name(name)} needs your data: give a folder or a file.")
    return task_of_table(name, read_split(unread_task(name), data, split), labels, options)


def task_of_table(
    name: str,
    raw: RawTable,
    labels: Sequence[str] | None = None,
    options: DataOptions | None = None,
) -> Task:
    """`own_task` of a table that is read already."""
    with reading(raw.source, DataError):
        return _OF_TABLE[task_name(name)](raw, labels, options)


def custom_task(
    data: str | Path | None,
    *,
    split: str = "train",
    labels: Sequence[str] | None = None,
    options: DataOptions | None = None,
) -> Task:
    """`own_task` of the name ``custom``: classes of texts or pairs, or numbers."""
    return own_task(CUSTOM, data, split=split, labels=labels, options=options)


def _known_task(task: Task, options: DataOptions) -> Task:
    for name in ("regression", "positive_label", "label_columns", "threshold", "label_names"):
        if name in options.given() and not (name == "threshold" and task.unanswerable):
            raise DataError(f"{name} is for the task {CUSTOM}: {task.name} says so itself.")
    if options.threshold is not None and not math.isfinite(options.threshold):
        raise DataError(f"the threshold must be a finite number, not {options.threshold}.")
    columns = options.text_columns or task.text_columns
    if len(columns) != len(task.text_columns):
        raise DataError(
            f"{task.name} reads {len(task.text_columns)} texts a row and {len(columns)} "
            f"column{'s' if len(columns) > 1 else ''} of texts were named: give text_column"
            f"{' and pair_column' if len(task.text_columns) > 1 else ' alone'}."
        )
    return replace(
        task,
        text_columns=columns,
        label_column=options.label_column or task.label_column,
        threshold=task.threshold if options.threshold is None else options.threshold,
    )
