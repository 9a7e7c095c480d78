"""Rows in JSON: an object a line, or one array of objects.

Python's own parser reads them, and not pyarrow's, which makes a time of every text that looks like
one and crashes on some lines.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparsebert.errors import DataError
from sparsebert.tasks.columns import show

if TYPE_CHECKING:
    import pyarrow as pa


def parse_object(line: str | bytes, where: str) -> dict[str, Any]:
    """The object of one line. DataError, beginning with ``where``, for anything else."""
    try:
        found = json.loads(line.decode("utf-8-sig") if isinstance(line, bytes) else line)
    except (ValueError, RecursionError) as fault:
        raise DataError(f"{where}: not JSON ({fault}).") from None
    if not isinstance(found, dict):
        raise DataError(f"{where}: the line's JSON is not an object.")
    return found


def parse_rows(text: str, source: str) -> list[dict[str, Any]]:
    """All rows of a file; blank lines are left out. DataError, naming the line or row."""
    if not text.lstrip().startswith("["):
        return [
            parse_object(line, f"{source}, line {number}")
            for number, line in enumerate(text.split("\n"), 1)
            if line.strip()
        ]
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise DataError(f"{source}: not JSON ({fault}).") from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{source}, row {number}: {show(row)} is not an object.")
    return list(rows)


def table_of_rows(rows: Sequence[dict[str, Any]], source: str) -> pa.Table:
    """Rows as columns; what a row lacks is null. DataError for a column of several types."""
    import pyarrow as pa

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = []
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns.append(pa.array(values))
        except (pa.ArrowException, OverflowError) as fault:
            raise DataError(f"{source}: column '{name}' {_mixture(values) or fault}") from fault
        except UnicodeEncodeError as fault:
            raise DataError(
                f"{source}: column '{name}' is not valid Unicode (it has half of a surrogate pair)."
            ) from fault
    return pa.Table.from_arrays(columns, names=names)


def _mixture(values: Sequence[Any]) -> str | None:
    """Two rows of a column that are of different types."""
    there = [(row, value) for row, value in enumerate(values, 1) if value is not None]
    for row, value in there:
        if type(value) is not type(there[0][1]):
            return (
                f"is not of one type: row {there[0][0]} is {show(there[0][1])} and row {row} is "
                f"{show(value)}. Write all of them the same way, such as text in quotes."
            )
    return None
