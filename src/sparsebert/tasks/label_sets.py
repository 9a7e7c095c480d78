"""Several labels per row: a column of lists of names, or a column of 0 and 1 for each label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparsebert.errors import DataError
from sparsebert.tasks.columns import (
    label_indices,
    need_columns,
    show,
    show_label,
    show_labels,
)
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.labels import check_among, check_count, data_labels, sorted_labels
from sparsebert.tasks.table import CUSTOM, Kind, Task
from sparsebert.tasks.words import all_tags, known_names, tag_names

if TYPE_CHECKING:
    import pyarrow as pa

THRESHOLD = 0.5
_FLAGS = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0}


def task_of_label_sets(
    table: pa.Table,
    columns: tuple[str, ...],
    label: str,
    labels: Sequence[str] | None,
    options: DataOptions,
    source: str,
) -> Task:
    """The task for texts with several labels each; ``labels`` are those of a trained model, if any.

    ``label`` is the column of lists, ignored if the options name a column for each label. Raises
    DataError.
    """
    options.refuse("regression", "positive_label", why="does not apply to rows with several labels")
    threshold = THRESHOLD if options.threshold is None else options.threshold
    if not 0 < threshold < 1:
        raise DataError(f"the threshold of a label must be between 0 and 1, not {threshold:g}.")
    flags = options.flag_columns or ()
    need_columns(table, (*columns, *(flags or (label,))), source)
    numbers = () if flags else options.names or known_names(table, label) or ()
    named = flags or numbers
    if labels is None:
        names = named or _label_set(table, label, source)
    else:
        occurring = () if flags else all_tags(tag_names(table, label, source))
        names = data_labels(labels, named, occurring)
    check_among(named, names, source)
    unknown = [name for name in names if name not in flags] if flags else []
    if unknown:
        raise DataError(
            f"{source}: the model also gives the labels {', '.join(unknown[:8])}, but "
            "label_columns names no column that says which rows have them: name one for each of "
            "its labels."
        )
    return Task(
        name=CUSTOM,
        title="custom",
        kind=Kind.LABEL_SETS,
        text_columns=columns,
        label_column="" if flags else label,
        flag_columns=flags,
        metrics=("micro_f1", "macro_f1", "average_precision"),
        main_metric="micro_f1",
        labels=names,
        positions=labels is not None,
        numbers=numbers,
        threshold=threshold,
    )


def label_sets(table: pa.Table, task: Task, source: str) -> npt.NDArray[np.float32]:
    """Which labels each row has: float32 ``[rows, labels]``, zeros and ones. Raises DataError."""
    found = np.zeros((table.num_rows, len(task.labels)), np.float32)
    if task.flag_columns:
        for name in task.flag_columns:
            found[:, task.labels.index(name)] = _flags(table, name, source)
        return found
    rows = tag_names(table, task.label_column, source)
    index = label_indices(all_tags(rows), task)
    for row, tags in enumerate(rows):
        for tag in tags:
            if tag not in index:
                raise DataError(
                    f"{source}: column '{task.label_column}', row {row + 1}: {show_label(tag)} is "
                    f"not one of the labels ({show_labels(task)})."
                )
            found[row, index[tag]] = 1.0
    return found


def _flags(table: pa.Table, name: str, source: str) -> npt.NDArray[np.float32]:
    values = table.column(name).to_pylist()
    for row, value in enumerate(values, 1):
        if str(value).strip().lower() not in _FLAGS:
            raise DataError(
                f"{source}: column '{name}', row {row}: {show(value)} is neither 0 nor 1."
            )
    return np.array([_FLAGS[str(value).strip().lower()] for value in values], np.float32)


def _label_set(table: pa.Table, column: str, source: str) -> tuple[str, ...]:
    distinct = set(all_tags(tag_names(table, column, source)))
    if len(distinct) < 2:
        raise DataError(
            f"{source}: the lists in '{column}' contain {len(distinct)} different label"
            f"{'s' if not distinct else ''}; a task needs at least two."
        )
    check_count(distinct, column, source)
    return sorted_labels(distinct)
