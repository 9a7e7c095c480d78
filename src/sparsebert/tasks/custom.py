"""A user's own task: texts, labels and metrics read off the data itself.

The file has a column ``text`` (or ``sentence``), or the pair ``text1``, ``text2`` (or
``sentence1``, ``sentence2``), and a column ``label``. Whole numbers, names and booleans are
classes; a column of numbers with a decimal point holds targets of a regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparsebert.errors import DataError
from sparsebert.tasks.columns import label_values, need_columns
from sparsebert.tasks.examples import read_split
from sparsebert.tasks.labels import are_unnamed
from sparsebert.tasks.table import CUSTOM, Kind, Task, get_task

if TYPE_CHECKING:
    import pyarrow as pa

TEXT_COLUMNS: tuple[tuple[str, ...], ...] = (
    ("text",),
    ("sentence",),
    ("text1", "text2"),
    ("sentence1", "sentence2"),
)

_MAX_CLASSES = 1000  # more distinct whole numbers than this are ids or scores, not classes


def find_task(name: str, data: str | Path | None, *, split: str = "train") -> Task:
    """The task of this name; for ``custom`` the one that ``data`` describes. Raises DataError."""
    return custom_task(data, split=split) if name.lower() == CUSTOM else get_task(name)


def custom_task(
    data: str | Path | None, *, split: str = "train", labels: Sequence[str] | None = None
) -> Task:
    """The task that ``data`` describes; the label set is that of ``split``, or the given one.

    ``labels`` are those of a model that is already trained; an empty sequence says that the model
    is a regression. Raises DataError if the columns or labels do not make a task.
    """
    if data is None:
        raise DataError(f"the task {CUSTOM} needs your data: give a folder or a file.")
    table, source = read_split(UNREAD, data, split)
    return task_of_table(table, source, labels)


def task_of_table(table: pa.Table, source: str, labels: Sequence[str] | None = None) -> Task:
    """`custom_task` of a table that is read already, ``source`` being what messages call it."""
    columns = _text_columns(table, source)
    need_columns(table, ("label",), source)
    if table.num_rows == 0:
        raise DataError(f"{source} has no rows.")
    if labels is not None:
        if not labels:
            return _task(columns, Kind.REGRESSION, ())
        # A head that nobody named: its classes are numbers.
        names = [str(place) for place in range(len(labels))] if are_unnamed(labels) else labels
        return _task(columns, Kind.CLASSIFICATION, tuple(names))
    if _is_fractional(table):
        return _task(columns, Kind.REGRESSION, ())
    return _task(columns, Kind.CLASSIFICATION, _label_set(table, source))


def _task(columns: tuple[str, ...], kind: Kind, labels: tuple[str, ...]) -> Task:
    regression = kind is Kind.REGRESSION
    return Task(
        name=CUSTOM,
        title="custom",
        kind=kind,
        # Both spellings of every column until the file has shown which it has.
        text_columns=columns or tuple(sorted({name for names in TEXT_COLUMNS for name in names})),
        metrics=("pearson", "spearman") if regression else ("accuracy", "f1"),
        main_metric="pearson" if regression else "accuracy",
        labels=labels,
    )


UNREAD = _task((), Kind.CLASSIFICATION, ())
"""The custom task while its columns are not known, to read a table with."""


def _text_columns(table: pa.Table, source: str) -> tuple[str, ...]:
    there = [names for names in TEXT_COLUMNS if set(names) <= set(table.column_names)]
    if len(there) != 1:
        spellings = " or ".join(", ".join(f"'{name}'" for name in names) for names in TEXT_COLUMNS)
        found = ", ".join(f"'{name}'" for name in table.column_names)
        what = "more than one set of text columns" if there else "no text column"
        raise DataError(f"{source} has {what}: name it {spellings}. Its columns are {found}.")
    return there[0]


def _is_fractional(table: pa.Table) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(table.column("label").type))


def _label_set(table: pa.Table, source: str) -> tuple[str, ...]:
    values = label_values(table, "label", source)
    if isinstance(values, np.ndarray):
        distinct = [str(value) for value in np.unique(values)]
    else:
        distinct = sorted(set(values))
    if len(distinct) < 2:
        raise DataError(
            f"{source}: every row has the label {distinct[0]!r}; a classification needs two."
        )
    if len(distinct) > _MAX_CLASSES:
        raise DataError(
            f"{source}: the column 'label' holds {len(distinct)} different labels, too many for "
            "classes; write numbers with a decimal point for a regression."
        )
    return tuple(distinct)
