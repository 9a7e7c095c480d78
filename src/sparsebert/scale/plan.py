"""From files to parts: runs of rows, each of which becomes one file of the output.

A plan depends on the input and on the rows in a part alone, not on who does the work: a job that is
run again, on more machines or fewer, finds the parts that are done under the names they had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsebert.errors import DataError
from sparsebert.progress import Progress
from sparsebert.scale.columns import Columns
from sparsebert.scale.json_lines import scan_json_lines
from sparsebert.scale.places import Input, InputFile

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_FILE = 10_000
_SCANS_AT_ONCE = 16  # of footers, which on an object store are mostly waited for


@dataclass(frozen=True)
class Part:
    """Rows of file number ``file``: ``rows`` of them, which are part ``number`` of the output.

    ``start`` and ``stop`` count rows of a Parquet file and bytes of JSON lines (-1: to its end).
    ``line`` is the first line of the latter.
    """

    number: int
    file: int
    start: int
    stop: int
    rows: int
    line: int = 0

    @property
    def name(self) -> str:
        """The name of its file in the output."""
        return f"part-{self.number:06d}.parquet"


@dataclass(frozen=True)
class Plan:
    """``schema`` are the columns that are read of every part, with their types."""

    parts: tuple[Part, ...]
    schema: pa.Schema
    rows: int
    digest: str


def make_plan(given: Input, columns: Columns, rows_per_file: int, progress: Progress) -> Plan:
    """Look at every file's columns and rows: footers of Parquet, and JSON lines as a whole.

    Raises DataError for a file that cannot be read, or whose columns are not what the job needs.
    """
    if rows_per_file < 1:
        raise DataError(f"rows_per_file must be at least 1, not {rows_per_file}.")

    def scan(file: InputFile) -> tuple[pa.Schema, list[tuple[int, int, int, int]]]:
        if file.is_parquet:
            return _scan_parquet(given, file, columns, rows_per_file)
        return scan_json_lines(given, file, columns, rows_per_file)

    schemas: list[pa.Schema] = []
    parts: list[Part] = []
    with ThreadPoolExecutor(_SCANS_AT_ONCE) as pool:
        for place, (schema, runs) in enumerate(pool.map(scan, given.files)):
            schemas.append(schema)
            parts += [Part(number, place, *run) for number, run in enumerate(runs, len(parts))]
            progress("looking at files", place + 1, len(given.files))
    rows = sum(part.rows for part in parts)
    if not rows:
        raise DataError("the input holds no rows.")
    schema = columns.of_job(schemas, [file.name for file in given.files])
    return Plan(tuple(parts), schema, rows, _digest(given, parts))


def _scan_parquet(
    given: Input, file: InputFile, columns: Columns, rows_per_file: int
) -> tuple[pa.Schema, list[tuple[int, int, int, int]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with given.filesystem.open_input_file(file.path) as source:
            opened = pq.ParquetFile(source)
            schema, rows = opened.schema_arrow, opened.metadata.num_rows
    except (pa.ArrowException, OSError) as fault:
        raise DataError(f"{file.name} cannot be read as Parquet: {fault}") from fault
    return columns.of_file(schema, file.name), list(_runs(rows, rows_per_file))


def _runs(rows: int, rows_per_file: int) -> Iterator[tuple[int, int, int, int]]:
    for start in range(0, rows, rows_per_file):
        stop = min(start + rows_per_file, rows)
        yield start, stop, stop - start, 0


def _digest(given: Input, parts: list[Part]) -> str:
    """SHA-256 of the names, sizes and rows of all files."""
    digest = hashlib.sha256()
    rows = [0] * len(given.files)
    for part in parts:
        rows[part.file] += part.rows
    for file, count in zip(given.files, rows, strict=True):
        digest.update(f"{file.name}\0{file.nbytes}\0{count}\n".encode())
    return digest.hexdigest()
