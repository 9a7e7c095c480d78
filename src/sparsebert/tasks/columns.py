"""Reading and checking the columns of a task's table; errors name file, column, row and value.

Rows are counted from 1, without the header of a CSV file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparsebert.errors import DataError
from sparsebert.tasks.table import Task

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = 60  # characters of a value in a message


def need_columns(table: pa.Table, names: tuple[str, ...], source: str) -> None:
    """DataError if columns are missing, naming them and those that exist; also for duplicates."""
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise DataError(
            f"{source} lacks the column{'s' if len(missing) > 1 else ''} {_quoted(missing)}; "
            f"it has {_quoted(table.column_names)}. Name yours with --text-column, --pair-column "
            "and --label-column (text_column=, ...)."
        )
    for name in names:
        if table.column_names.count(name) > 1:
            raise DataError(f"{source} has more than one column '{name}'.")


def holds_lists(table: pa.Table, name: str) -> bool:
    """Whether there is exactly one column of this name and it holds lists."""
    import pyarrow as pa

    if table.column_names.count(name) != 1:
        return False
    kind = table.schema.field(name).type
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def text_column(table: pa.Table, name: str, source: str) -> list[str]:
    """A column of texts. DataError for another type or a missing text."""
    refuse_nulls(_plain(table.column(name)), name, source)
    texts: list[str] = texts_or_none(table, name, source)  # type: ignore[assignment]
    return texts


def texts_or_none(table: pa.Table, name: str, source: str) -> list[str | None]:
    """A column of texts, None where one is missing. DataError for another type."""
    import pyarrow as pa

    column = _plain(table.column(name))
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise _wrong_type(column, name, source, "not text")
    texts: list[str | None] = column.to_pylist()
    return texts


def class_column(table: pa.Table, task: Task, source: str) -> npt.NDArray[np.int64]:
    """A task's labels as indices into ``task.labels``.

    DataError for a type that labels cannot have, and for a label outside the set.
    """
    names = label_names(table, task.label_column, source)
    found = class_indices(names, task)
    outside = np.flatnonzero(found < 0)
    if outside.size:
        row = int(outside[0])
        raise _outside(source, task, row, names[row])
    return found


def class_indices(names: Sequence[str], task: Task) -> npt.NDArray[np.int64]:
    """Labels from `label_names` as indices into ``task.labels``; -1 for those not among them."""
    index = label_indices(names, task)
    return np.array([index.get(name, -1) for name in names], np.int64)


def label_indices(names: Sequence[str], task: Task) -> dict[str, int]:
    """The index in ``task.labels`` of each label that may be among ``names``: a name or a number.

    Labels are names. They are taken as numbers only if the task allows that, all of them are
    integers, and none of the task's own labels is.
    """
    index = {label: number for number, label in enumerate(task.labels)}
    if are_positions(names, task):
        return {str(number): index[name] for number, name in enumerate(_numbered(task))}
    return index


def are_positions(names: Sequence[str], task: Task) -> bool:
    """Whether labels are not names but numbers that stand for them."""
    return _takes_positions(task) and bool(names) and all(map(is_whole_number, names))


def label_names(table: pa.Table, name: str, source: str) -> list[str]:
    """Class labels as text; integers and booleans are written out.

    DataError for any other type, and for a row without a label.
    """
    import pyarrow as pa

    column = _plain(table.column(name))
    refuse_nulls(column, name, source)
    kind = column.type
    values: list[Any] = column.to_pylist()
    if pa.types.is_boolean(kind):
        return ["true" if value else "false" for value in values]
    if pa.types.is_integer(kind):
        return [str(value) for value in values]
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise _wrong_type(column, name, source, "which is neither integers nor class names")
    for row, value in enumerate(values, 1):
        if not value.strip():
            raise DataError(f"{source}: column '{name}', row {row} has no label (it is empty).")
    return values


def labelled(table: pa.Table, name: str) -> npt.NDArray[np.bool_]:
    """Which rows have a label that is neither null nor blank: bool ``[rows]``."""
    values = table.column(name).to_pylist()
    return np.array(
        [not (value is None or (isinstance(value, str) and not value.strip())) for value in values],
        np.bool_,
    )


def number_column(
    table: pa.Table, name: str, limits: tuple[float, float] | None, source: str
) -> npt.NDArray[np.float32]:
    """A column of regression targets. DataError for another type, or if `wrong_numbers`."""
    values = number_values(table, name, source)
    wrong = np.flatnonzero(wrong_numbers(values, limits))
    if wrong.size:
        row = int(wrong[0])
        hidden = values[row] == -1.0 and limits is not None and bool(np.all(values == -1.0))
        raise DataError(
            f"{source}: column '{name}', row {row + 1}: {float(values[row])} is not "
            + (f"a number from {limits[0]:g} to {limits[1]:g}." if limits else "a finite number.")
            + (_HIDDEN if hidden else "")
        )
    return values


def number_values(table: pa.Table, name: str, source: str) -> npt.NDArray[np.float32]:
    """A column of numbers, unchecked, as float32; text (as in CSV files) is parsed.

    DataError for another type, for text that is not a number, and for a missing value.
    """
    import pyarrow as pa

    column = _plain(table.column(name))
    refuse_nulls(column, name, source)
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return np.asarray(column.to_numpy(), np.float32)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise _wrong_type(column, name, source, "not numbers")
    numbers = [as_number(text) for text in column.to_pylist()]
    for row, number in enumerate(numbers):
        if number is None:
            raise DataError(
                f"{source}: column '{name}', row {row + 1}: {show(column[row].as_py())} is not a "
                "number."
            )
    return np.array(numbers, np.float32)


def wrong_numbers(
    values: npt.NDArray[np.float32], limits: tuple[float, float] | None
) -> npt.NDArray[np.bool_]:
    """Which targets are not finite or are outside ``limits``: bool ``[rows]``."""
    low, high = limits or (-np.inf, np.inf)
    wrong: npt.NDArray[np.bool_] = ~np.isfinite(values) | (values < low) | (values > high)
    return wrong


def refuse_nulls(column: pa.ChunkedArray, name: str, source: str) -> None:
    """DataError naming the first row without a value."""
    import pyarrow.compute as pc

    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise DataError(f"{source}: column '{name}', row {row + 1} has no value (null).")


def show(value: Any) -> str:
    """A value for a message, shortened to a readable length."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


_HIDDEN = " All labels are -1: this looks like a test set whose labels are hidden."


def show_label(name: str) -> str:
    """A label for a message: in quotes, unless it is an integer."""
    return name if is_whole_number(name) else show(name)


def show_labels(task: Task) -> str:
    """The first of a task's labels, with their numbers if the data may use those instead."""
    shown = [
        f"{number} {label}" if _takes_positions(task) else label
        for number, label in enumerate(_numbered(task)[:8])
    ]
    return ", ".join(shown) + (", ..." if len(task.labels) > 8 else "")


def is_whole_number(text: str) -> bool:
    """Whether the text is an integer in its usual spelling (not ``01``)."""
    return re.fullmatch("0|-?[1-9][0-9]*", text) is not None


def as_number(text: str) -> float | None:
    """A text as a float, None if it is not a number; ``1_000`` is not one."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _wrong_type(column: pa.ChunkedArray, name: str, source: str, fault: str) -> DataError:
    if not len(column):  # whose type then says nothing
        return DataError(f"{source} has no rows.")
    return DataError(
        f"{source}: the column '{name}' holds {column.type}, {fault}; row 1 is "
        f"{show(column[0].as_py())}."
    )


def _takes_positions(task: Task) -> bool:
    return bool(task.positions or task.numbers) and not any(map(is_whole_number, task.labels))


def _numbered(task: Task) -> tuple[str, ...]:
    """The labels in the order of the numbers that may stand for them."""
    return task.numbers or task.labels


def _outside(source: str, task: Task, row: int, name: str) -> DataError:
    return DataError(
        f"{source}: column '{task.label_column}', row {row + 1}: {show_label(name)} is not one of "
        f"the labels ({show_labels(task)})."
        + (" A label of -1 marks a test set whose labels are hidden." if name == "-1" else "")
    )


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dictionary-encoded and view-typed columns as ordinary ones."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    return column


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "no columns"
