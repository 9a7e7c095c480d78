"""Finds the task for a name and data.

The benchmark tasks are in a table (`sparsebert.tasks.table`). The others are defined by their data:
a function derives the `Task` from columns and labels. A new kind is added to `_OF_TABLE`.
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

OfTable = Callable[[RawTable, Sequence[str] | None, DataOptions], Task]

_OF_TABLE: dict[str, OfTable] = {
    CUSTOM: custom_of_table,
    NER: ner_of_table,
    PAIRS: pairs_of_table,
    RETRIEVAL: retrieval_of_table,
}

UNREAD = Task(CUSTOM, CUSTOM, Kind.CLASSIFICATION, (), ("accuracy",), "accuracy")
"""A placeholder for reading a table before its columns are known."""

_UNREAD = {
    NER: replace(UNREAD, name=NER, kind=Kind.TOKENS, file_types=WORD_TYPES, max_length=NER_LENGTH),
    PAIRS: replace(UNREAD, name=PAIRS, kind=Kind.PAIRS, max_length=EMBEDDING_LENGTH),
    RETRIEVAL: replace(UNREAD, name=RETRIEVAL, kind=Kind.RETRIEVAL, max_length=EMBEDDING_LENGTH),
}


def unread_task(name: str) -> Task:
    """The task of this name as far as it is known without its data: mainly which files it reads."""
    return _UNREAD.get(task_name(name), UNREAD) if is_own(name) else get_task(name)


def reading_task(name: str | None) -> Task | None:
    """The task by which unlabelled texts are read; None if the file's columns alone decide."""
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
    """The task of this name, derived from ``data`` unless it is a benchmark. Raises DataError."""
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
    """The task that ``data`` describes, with the labels of ``split`` unless ``labels`` is given.

    ``labels`` are those of a model that is already trained; an empty sequence means that the model
    is a regression. Raises DataError if the columns or labels do not make a task.
    """
    if data is None:
        raise DataError(f"the task {task_name(name)} needs your data: pass a folder or a file.")
    return task_of_table(name, read_split(unread_task(name), data, split), labels, options)


def task_of_table(
    name: str,
    raw: RawTable,
    labels: Sequence[str] | None = None,
    options: DataOptions | None = None,
) -> Task:
    """`own_task` for a table that has already been read."""
    with reading(raw.source, DataError):
        return _OF_TABLE[task_name(name)](raw, labels, options or DataOptions())


def _known_task(task: Task, options: DataOptions) -> Task:
    refused = ["regression", "positive_label", "label_columns", "label_names"]
    refused += [] if task.unanswerable else ["threshold"]
    options.refuse(*refused, why=f"is for the task {CUSTOM} and does not apply to {task.name}")
    if options.threshold is not None and not math.isfinite(options.threshold):
        raise DataError(f"the threshold must be a finite number, not {options.threshold}.")
    columns = options.text_columns or task.text_columns
    if len(columns) != len(task.text_columns):
        needed = "two texts" if len(task.text_columns) > 1 else "one text"
        named = "two text columns were" if len(columns) > 1 else "one text column was"
        raise DataError(
            f"{task.name} reads {needed} per row, but {named} named: pass text_column"
            f"{' and pair_column' if len(task.text_columns) > 1 else ' alone'}."
        )
    return replace(
        task,
        text_columns=columns,
        label_column=options.label_column or task.label_column,
        threshold=task.threshold if options.threshold is None else options.threshold,
    )
