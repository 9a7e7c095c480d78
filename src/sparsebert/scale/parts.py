"""Dividing the input into parts, each a range of rows that becomes one output file.

The plan depends only on the input and the number of rows per part, not on the workers: a job that
is resumed on more or fewer machines finds its finished parts under the same names. A part is read
in small batches, so that memory use does not grow with the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsebert.errors import DataError
from sparsebert.progress import Progress
from sparsebert.scale.columns import Columns
from sparsebert.scale.input_files import InputFile, InputFiles
from sparsebert.scale.json_lines import read_json_lines, scan_json_lines
from sparsebert.scale.parquet import (
    ROWS_AT_ONCE,
    ParquetReader,
    content_sha256,
    is_same,
    scan_parquet,
)

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_FILE = 10_000
_SCANS_AT_ONCE = 16  # reading footers from an object store is mostly waiting


@dataclass(frozen=True)
class Part:
    """``rows`` rows of input file number ``file``, which become part ``number`` of the output.

    ``start`` and ``stop`` are row numbers in Parquet and byte offsets in JSON lines (-1: to the
    end). ``line`` is the number of the first line, for JSON lines. ``checksum`` tells whether the
    input has changed: a CRC-32 of the part's lines, or of the footer of a Parquet file.
    """

    number: int
    file: int
    start: int
    stop: int
    rows: int
    line: int = 0
    checksum: int = 0

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
    """Scan the columns and rows of every file: all of it, but of remote Parquet only the footer.

    Raises DataError for a file that cannot be read or whose columns do not fit the job.
    """
    if rows_per_file < 1:
        raise DataError(f"rows_per_file must be at least 1, not {rows_per_file}.")

    def scan(file: InputFile) -> tuple[pa.Schema, list[tuple[int, int, int, int, int]], str]:
        if not file.is_parquet:  # the checksums of its parts are of all lines
            return *scan_json_lines(inputs, file, columns, rows_per_file), ""
        found = scan_parquet(inputs, file, columns, rows_per_file)
        return *found, content_sha256(inputs, file)

    schemas: list[pa.Schema] = []
    contents: list[str] = []
    parts: list[Part] = []
    with ThreadPoolExecutor(_SCANS_AT_ONCE) as pool:
        for index, (schema, runs, content) in enumerate(pool.map(scan, inputs.files)):
            schemas.append(schema)
            contents.append(content)
            parts += [Part(number, index, *run) for number, run in enumerate(runs, len(parts))]
            progress("scanning files", index + 1, len(inputs.files))
    rows = sum(part.rows for part in parts)
    if not rows:
        raise DataError("the input has no rows.")
    schema = columns.of_job(schemas, [file.name for file in inputs.files])
    return Plan(tuple(parts), schema, rows, _digest(inputs, contents, parts))


def _digest(inputs: InputFiles, contents: Sequence[str], parts: Sequence[Part]) -> str:
    """SHA-256 of the names, sizes, content and parts of all files."""
    digest = hashlib.sha256()
    for file, content in zip(inputs.files, contents, strict=True):
        digest.update(f"{file.name}\0{file.nbytes}\0{content}\n".encode())
    for part in parts:
        digest.update(f"{part.file} {part.rows} {part.checksum}\n".encode())
    return digest.hexdigest()


class PartReader:
    """Reads parts of the input as tables with ``schema``, best in their order (`ParquetReader`)."""

    def __init__(self, inputs: InputFiles, schema: pa.Schema) -> None:
        self._inputs = inputs
        self._schema = schema
        self._parquet: ParquetReader | None = None

    def read(self, part: Part) -> Iterator[pa.Table]:
        """Tables with ``part.rows`` rows in total, in the order of the file.

        Raises DataError if the file cannot be read, or has changed since the plan was made.
        """
        file = self._inputs.files[part.file]
        if _size(self._inputs, file) != file.nbytes:
            raise file.changed()
        if file.is_parquet:
            tables = self._read_parquet(file, part)
        else:
            tables = read_json_lines(self._inputs, file, self._schema, part, ROWS_AT_ONCE)
        rows = 0
        for table in tables:
            rows += table.num_rows
            yield table
        if rows != part.rows:
            raise file.changed()

    def _read_parquet(self, file: InputFile, part: Part) -> Iterator[pa.Table]:
        if not is_same(self._inputs, file, part.checksum):
            raise file.changed()
        reader, self._parquet = self._parquet, None  # kept only if all rows can be read
        if reader is None or reader.file != file:
            reader = ParquetReader(self._inputs, file, self._schema)
        yield from reader.read(part.start, part.stop)
        self._parquet = reader


def _size(inputs: InputFiles, file: InputFile) -> int | None:
    try:
        size: int | None = inputs.filesystem.get_file_info(file.path).size
    except OSError as fault:
        raise DataError(f"{file.name} cannot be read: {fault}") from fault
    return size
