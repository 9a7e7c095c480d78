"""The rows of a part, some hundred at a time: however large a file is, little of it is held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sparsebert.errors import DataError
from sparsebert.scale.json_lines import read_json_lines
from sparsebert.scale.places import Input, InputFile
from sparsebert.scale.plan import Part

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 1024
_BUFFER = 1 << 20  # bytes of a column that are read at a time


def read_part(given: Input, schema: pa.Schema, part: Part) -> Iterator[pa.Table]:
    """Tables of ``schema`` with ``part.rows`` rows in all, in the order of the file.

    Raises DataError if the file cannot be read, or is not the one that the plan was made of.
    """
    file = given.files[part.file]
    changed = f"{file.name} has changed since the job began: run it into another folder."
    if _size(given, file) != file.nbytes:
        raise DataError(changed)
    if file.is_parquet:
        tables = _read_parquet(given, file, schema, part)
    else:
        tables = read_json_lines(
            given, file, schema, part.start, part.stop, part.line, ROWS_AT_ONCE
        )
    rows = 0
    for table in tables:
        rows += table.num_rows
        yield table
    if rows != part.rows:
        raise DataError(changed)


def _size(given: Input, file: InputFile) -> int | None:
    try:
        size: int | None = given.filesystem.get_file_info(file.path).size
    except OSError as fault:
        raise DataError(f"{file.name} cannot be read: {fault}") from fault
    return size


def _read_parquet(
    given: Input, file: InputFile, schema: pa.Schema, part: Part
) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with given.filesystem.open_input_file(file.path) as source:
            opened = pq.ParquetFile(source, buffer_size=_BUFFER)
            names = [name for name in schema.names if name in opened.schema_arrow.names]
            groups, place = _row_groups(opened, part)
            for batch in opened.iter_batches(ROWS_AT_ONCE, groups, names):
                first, place = place, place + len(batch)
                start, stop = max(part.start - first, 0), min(part.stop - first, len(batch))
                if start < stop:
                    yield _typed(pa.table(batch.slice(start, stop - start)), schema)
    except (pa.ArrowException, OSError) as fault:
        raise DataError(f"{file.name} cannot be read as Parquet: {fault}") from fault


def _row_groups(opened: object, part: Part) -> tuple[list[int], int]:
    """The row groups that a part lies in, and the row of the file that they begin with."""
    import pyarrow.parquet as pq

    assert isinstance(opened, pq.ParquetFile)
    groups: list[int] = []
    begin = row = 0
    for group in range(opened.num_row_groups):
        behind = row + opened.metadata.row_group(group).num_rows
        if behind > part.start and row < part.stop:
            begin = begin if groups else row
            groups.append(group)
        row = behind
    return groups, begin


def _typed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the columns and types of ``schema``; a column it lacks is null."""
    import pyarrow as pa

    arrays = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
