"""A custom task, whose texts, labels and metrics are inferred from the data.

The file has a column ``text`` (or ``sentence``), or the pair ``text1``, ``text2`` (or
``sentence1``, ``sentence2``), and a column ``label``, unless `DataOptions` names others. Labels are
class names, whatever they look like, or numbers whose names are in the file's own schema, unless
``regression`` is set or the column is called ``score`` instead of ``label``: then they are numbers
to predict. Rows have several labels if the label column
(here also ``labels``) holds lists of names, or if ``label_columns`` names one column per label.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sparsebert.errors import DataError
from sparsebert.tasks.columns import holds_lists, label_names, need_columns, show
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.label_sets import task_of_label_sets
from sparsebert.tasks.labels import check_among, check_count, data_labels, sorted_labels
from sparsebert.tasks.reading import RawTable
from sparsebert.tasks.table import CUSTOM, Kind, Task
from sparsebert.tasks.words import known_names

if TYPE_CHECKING:
    import pyarrow as pa

TEXT_COLUMNS: tuple[tuple[str, ...], ...] = (
    ("text",),
    ("sentence",),
    ("text1", "text2"),
    ("sentence1", "sentence2"),
)
SCORE = "score"

# Pairs of labels of which the second is evidently the positive class.
_TRUTH = (("0", "1"), ("false", "true"))
_LIST = re.compile(r"\[(['\"\d].*)?\]", re.DOTALL)  # as pandas and Python write one


def custom_of_table(raw: RawTable, labels: Sequence[str] | None, options: DataOptions) -> Task:
    """The task that a table describes; ``labels`` are those of `sparsebert.tasks.own.own_task`."""
    table, source = raw.table, raw.source
    columns = options.text_columns or text_columns(table, source)
    if options.flag_columns is not None:
        return task_of_label_sets(table, columns, "", labels, options, source)
    label = options.label_column or label_column(table, source)
    if holds_lists(table, label):
        return task_of_label_sets(table, columns, label, labels, options, source)
    need_columns(table, (*columns, label), source)
    if table.num_rows == 0:
        raise DataError(f"{source} has no rows.")
    if options.regression or (label == SCORE if labels is None else not labels):
        why = f"'{options.positive_label}' is a class, and this task is a regression"
        options.refuse("positive_label", why=why)
        return _task(columns, label, Kind.REGRESSION)
    options.refuse("label_names", why="is for lists of labels that are numbers")
    options.refuse("threshold", why="is for rows with several labels")
    numbers = known_names(table, label) or ()
    if labels is None:
        occurring = _label_set(table, label, source)
        names = numbers or occurring
    else:
        names = data_labels(labels, numbers, label_names(table, label, source))
        if not {*names} & {*numbers}:  # other words for the classes: only their order can count
            numbers = ()
    check_among(numbers, names, source)
    positive = options.positive_label
    if positive is None and tuple(map(str.lower, names)) in _TRUTH:
        positive = names[1]
    if positive is not None and positive not in names:
        raise DataError(
            f"positive_label '{positive}' is not one of the labels ({', '.join(names[:20])})."
        )
    # Data may refer to a trained model's classes by index; a file's own labels have no fixed order.
    task = _task(columns, label, Kind.CLASSIFICATION, names)
    return replace(task, positive=positive, positions=labels is not None, numbers=numbers)


def _task(columns: tuple[str, ...], label: str, kind: Kind, labels: tuple[str, ...] = ()) -> Task:
    regression = kind is Kind.REGRESSION
    return Task(
        name=CUSTOM,
        title="custom",
        kind=kind,
        text_columns=columns,
        label_column=label,
        metrics=("pearson", "spearman") if regression else ("accuracy", "f1"),
        main_metric="pearson" if regression else "accuracy",
        labels=labels,
    )


def text_columns(table: pa.Table, source: str, *, count: int | None = None) -> tuple[str, ...]:
    """The entry of `TEXT_COLUMNS` (of ``count`` texts per row) that the table has. DataError."""
    known = [names for names in TEXT_COLUMNS if count in (None, len(names))]
    there = [names for names in known if set(names) <= set(table.column_names)]
    if len(there) != 1:
        spellings = " or ".join(", ".join(f"'{name}'" for name in names) for names in known)
        found = ", ".join(f"'{name}'" for name in table.column_names)
        what = "more than one set of text columns" if there else "no text column"
        raise DataError(
            f"{source} has {what}: name it {spellings}, or say which with --text-column "
            f"(text_column=) and, for pairs, --pair-column. Its columns are {found}."
        )
    return there[0]


def label_column(table: pa.Table, source: str) -> str:
    """``label``, else ``score``, else ``labels`` if it holds lists. Raises DataError."""
    for name in ("label", SCORE):
        if name in table.column_names:
            return name
    if holds_lists(table, "labels"):
        return "labels"
    found = ", ".join(f"'{name}'" for name in table.column_names)
    raise DataError(
        f"{source} lacks the column 'label' (or '{SCORE}', for numbers): say which column has the "
        f"labels with --label-column (label_column=). Its columns are {found}."
    )


def holds_label_sets(table: pa.Table, options: DataOptions) -> bool:
    """Whether a row has several labels: a list of them, or a column for each."""
    names = (options.label_column,) if options.label_column else ("label", "labels")
    return options.flag_columns is not None or any(holds_lists(table, name) for name in names)


def _label_set(table: pa.Table, column: str, source: str) -> tuple[str, ...]:
    import pyarrow as pa

    if pa.types.is_floating(table.column(column).type):
        raise DataError(
            f"{source}: the column '{column}' holds numbers with a decimal point. If they are "
            "scores to predict, pass --regression (regression=True); if they are classes, write "
            "them as text or integers."
        )
    distinct = set(label_names(table, column, source))
    if len(distinct) < 2:
        raise DataError(
            f"{source}: every row has the label {distinct.pop()!r}; a classification task needs at "
            "least two labels."
        )
    several = sorted(label for label in distinct if "," in label)
    if several and all(map(_LIST.fullmatch, distinct)):
        raise DataError(
            f"{source}: the labels in '{column}' are lists written as text, such as "
            f"{show(several[0])}: for several labels per row, write lists in JSON lines or "
            "Parquet, or a column of 0 and 1 for each label (--label-columns)."
        )
    hint = " If they are scores to predict, pass --regression (regression=True)."
    check_count(distinct, column, source, hint)
    return sorted_labels(distinct)
