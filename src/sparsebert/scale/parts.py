"""Dividing the input into parts, each a range of rows that becomes one output file.

The plan depends only on the input and the number of rows per part, not on the workers: a job that
is resumed on more or fewer machines finds its finished parts under the same names. A part is read
in small batches, so that memory use does not grow with the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparsebert.errors import DataError, reading
from sparsebert.progress import Progress
from sparsebert.scale.columns import Columns
from sparsebert.scale.input_files import InputFile, InputFiles
from sparsebert.scale.json_lines import read_json_lines, scan_json_lines
from sparsebert.tasks.expansion import Expansion, ParquetRows, decoded_bytes

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_FILE = 10_000
_SCANS_AT_ONCE = 16  # reading footers from an object store is mostly waiting


@dataclass(frozen=True)
class Part:
    """``rows`` rows of input file number ``file``, which become part ``number`` of the output.

    ``start`` and ``stop`` are row numbers in Parquet and byte offsets in JSON lines (-1: to the
    end). ``line`` is the number of the first line, for JSON lines.
    """

    number: int
    file: int
    start: int
    stop: int
    rows: int
    line: int = 0

    @property
    def name(self) -> str:
        """The name of its output file."""
        return f"part-{self.number:06d}.parquet"


@dataclass(frozen=True)
class Plan:
    """All parts, and the ``schema`` with which they are read."""

    parts: tuple[Part, ...]
    schema: pa.Schema
    rows: int
    digest: str


def make_plan(inputs: InputFiles, columns: Columns, rows_per_file: int, progress: Progress) -> Plan:
    """Scan the columns and rows of every file: the footer of Parquet, but all of JSON lines.

    Raises DataError for a file that cannot be read or whose columns do not fit the job.
    """
    if rows_per_file < 1:
        raise DataError(f"rows_per_file must be at least 1, not {rows_per_file}.")

    def scan(file: InputFile) -> tuple[pa.Schema, list[tuple[int, int, int, int]]]:
        if file.is_parquet:
            return _scan_parquet(inputs, file, columns, rows_per_file)
        return scan_json_lines(inputs, file, columns, rows_per_file)

    schemas: list[pa.Schema] = []
    parts: list[Part] = []
    with ThreadPoolExecutor(_SCANS_AT_ONCE) as pool:
        for index, (schema, runs) in enumerate(pool.map(scan, inputs.files)):
            schemas.append(schema)
            parts += [Part(number, index, *run) for number, run in enumerate(runs, len(parts))]
            progress("scanning files", index + 1, len(inputs.files))
    rows = sum(part.rows for part in parts)
    if not rows:
        raise DataError("the input has no rows.")
    schema = columns.of_job(schemas, [file.name for file in inputs.files])
    return Plan(tuple(parts), schema, rows, _digest(inputs, parts))


def _scan_parquet(
    inputs: InputFiles, file: InputFile, columns: Columns, rows_per_file: int
) -> tuple[pa.Schema, list[tuple[int, int, int, int]]]:
    import pyarrow.parquet as pq

    with reading(file.name, DataError), inputs.filesystem.open_input_file(file.path) as source:
        opened = pq.ParquetFile(source)
        schema, rows = opened.schema_arrow, opened.metadata.num_rows
        Expansion(file.name, file.nbytes).rows(rows)
    return columns.of_file(schema, file.name), list(_runs(rows, rows_per_file))


def _runs(rows: int, rows_per_file: int) -> Iterator[tuple[int, int, int, int]]:
    for start in range(0, rows, rows_per_file):
        stop = min(start + rows_per_file, rows)
        yield start, stop, stop - start, 0


def _digest(inputs: InputFiles, parts: list[Part]) -> str:
    """SHA-256 of the names, sizes and rows of all files."""
    digest = hashlib.sha256()
    rows = [0] * len(inputs.files)
    for part in parts:
        rows[part.file] += part.rows
    for file, count in zip(inputs.files, rows, strict=True):
        digest.update(f"{file.name}\0{file.nbytes}\0{count}\n".encode())
    return digest.hexdigest()


ROWS_AT_ONCE, BYTES_AT_ONCE = 1024, 64 << 20
_BUFFER = 1 << 20  # bytes of a column read at a time


def read_part(inputs: InputFiles, schema: pa.Schema, part: Part) -> Iterator[pa.Table]:
    """Tables with ``schema``, with ``part.rows`` rows in total, in the order of the file.

    Raises DataError if the file cannot be read, or has changed since the plan was made.
    """
    file = inputs.files[part.file]
    changed = f"{file.name} has changed since the job began: start it again in another folder."
    if _size(inputs, file) != file.nbytes:
        raise DataError(changed)
    if file.is_parquet:
        tables = _read_parquet(inputs, file, schema, part)
    else:
        tables = read_json_lines(
            inputs, file, schema, part.start, part.stop, part.line, ROWS_AT_ONCE
        )
    rows = 0
    for table in tables:
        rows += table.num_rows
        yield table
    if rows != part.rows:
        raise DataError(changed)


def _size(inputs: InputFiles, file: InputFile) -> int | None:
    try:
        size: int | None = inputs.filesystem.get_file_info(file.path).size
    except OSError as fault:
        raise DataError(f"{file.name} cannot be read: {fault}") from fault
    return size


def _read_parquet(
    inputs: InputFiles, file: InputFile, schema: pa.Schema, part: Part
) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with reading(file.name, DataError), inputs.filesystem.open_input_file(file.path) as source:
        opened = pq.ParquetFile(source, buffer_size=_BUFFER)
        names = [name for name in schema.names if name in opened.schema_arrow.names]
        groups, row = _row_groups(opened, part)
        local = inputs.filesystem.type_name == "local"
        with Path(file.path).open("rb") if local else nullcontext() as headers:
            rows = ParquetRows(opened, headers, file.nbytes, file.name, groups)
            waiting: list[pa.RecordBatch] = []
            for batch in rows.batches(names):
                first, row = row, row + len(batch)
                start, stop = max(part.start - first, 0), min(part.stop - first, len(batch))
                if start < stop:
                    waiting.append(batch.slice(start, stop - start))
                if _is_enough(waiting):
                    yield _typed(pa.Table.from_batches(waiting), schema)
                    waiting = []
            if waiting:
                yield _typed(pa.Table.from_batches(waiting), schema)


def _is_enough(batches: Sequence[pa.RecordBatch]) -> bool:
    rows = sum(map(len, batches))
    return rows >= ROWS_AT_ONCE or sum(map(decoded_bytes, batches)) >= BYTES_AT_ONCE


def _row_groups(opened: object, part: Part) -> tuple[list[int], int]:
    """The row groups that a part spans, and the number of their first row."""
    import pyarrow.parquet as pq

    assert isinstance(opened, pq.ParquetFile)
    groups: list[int] = []
    begin = row = 0
    for group in range(opened.num_row_groups):
        end = row + opened.metadata.row_group(group).num_rows
        if end > part.start and row < part.stop:
            begin = begin if groups else row
            groups.append(group)
        row = end
    return groups, begin


def _typed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the columns and types of ``schema``; missing columns are null."""
    import pyarrow as pa

    arrays = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
