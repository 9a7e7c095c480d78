"""Take columns out of a task's table and check them, naming file, column, row and value.

Rows are counted from 1, as a reader of the file would; the header line of a CSV file is not one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparsebert.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = 60  # characters of a value in a message


def need_columns(table: pa.Table, names: tuple[str, ...], source: str) -> None:
    """DataError naming every column of ``names`` that is missing, and what there is."""
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise DataError(
            f"{source} lacks the column{'s' if len(missing) > 1 else ''} {_quoted(missing)}; "
            f"it has {_quoted(table.column_names)}."
        )
    for name in names:
        if table.column_names.count(name) > 1:
            raise DataError(f"{source} has more than one column '{name}'.")


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
        raise DataError(
            f"{source}: the column '{name}' holds {column.type}, not text; row 1 is "
            f"{show(column[0].as_py())}."
        )
    texts: list[str | None] = column.to_pylist()
    return texts


def class_column(
    table: pa.Table, name: str, labels: tuple[str, ...], source: str
) -> npt.NDArray[np.int64]:
    """A column of class labels as indices into ``labels``.

    DataError for a type that labels do not have, and for a label outside the set.
    """
    values = label_values(table, name, source)
    found = class_indices(values, labels)
    outside = np.flatnonzero(found < 0)
    if outside.size:
        row = int(outside[0])
        raise _outside(source, name, row, values[row], labels)
    return found


def class_indices(
    values: npt.NDArray[np.int64] | list[str], labels: tuple[str, ...]
) -> npt.NDArray[np.int64]:
    """Labels as they stand in a file as indices into ``labels``, -1 where one is not in the set.

    Text is taken as label names; whole numbers as indices, or as names where all labels are
    written as whole numbers.
    """
    if isinstance(values, np.ndarray) and not all(_is_number(label) for label in labels):
        return np.where((values < 0) | (values >= len(labels)), -1, values)
    index = {label: place for place, label in enumerate(labels)}
    return np.array([index.get(str(value), -1) for value in values], np.int64)


def label_values(table: pa.Table, name: str, source: str) -> npt.NDArray[np.int64] | list[str]:
    """Class labels as they stand: whole numbers, or names. DataError for any other type."""
    import pyarrow as pa

    column = _plain(table.column(name))
    refuse_nulls(column, name, source)
    if pa.types.is_boolean(column.type):
        return ["true" if value else "false" for value in column.to_pylist()]
    if pa.types.is_integer(column.type):
        return np.asarray(column.to_numpy(), np.int64)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        names: list[str] = column.to_pylist()
        return names
    raise DataError(
        f"{source}: the column '{name}' holds {column.type}, which is neither whole numbers nor "
        f"names of classes; row 1 is {show(column[0].as_py())}."
    )


def number_column(
    table: pa.Table, name: str, limits: tuple[float, float] | None, source: str
) -> npt.NDArray[np.float32]:
    """A column of regression targets. DataError for another type, NaN, or outside ``limits``."""
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
    """A column of numbers as they stand, float32. DataError for another type or a missing one."""
    import pyarrow as pa

    column = _plain(table.column(name))
    refuse_nulls(column, name, source)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise DataError(
            f"{source}: the column '{name}' holds {column.type}, not numbers; row 1 is "
            f"{show(column[0].as_py())}."
        )
    return np.asarray(column.to_numpy(), np.float32)


def wrong_numbers(
    values: npt.NDArray[np.float32], limits: tuple[float, float] | None
) -> npt.NDArray[np.bool_]:
    """Where targets are no finite numbers, or outside ``limits``: bool ``[rows]``."""
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
    """A value in a message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


_HIDDEN = " All labels are -1: this looks like a test set whose labels are hidden."


def _outside(source: str, name: str, row: int, value: object, labels: tuple[str, ...]) -> DataError:
    shown = str(value) if isinstance(value, np.integer) else show(value)
    named = ", ".join(f"{place} {label}" for place, label in enumerate(labels[:8]))
    more = ", ..." if len(labels) > 8 else ""
    hidden = str(value) == "-1"
    return DataError(
        f"{source}: column '{name}', row {row + 1}: {shown} is not one of the labels "
        f"({named}{more})."
        + (" A label of -1 marks a test set whose labels are hidden." if hidden else "")
    )


def _is_number(label: str) -> bool:
    return label.removeprefix("-").isdecimal()


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
