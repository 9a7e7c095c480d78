"""Parquet: scanning a file for its columns and parts, and reading the rows of a part."""

from __future__ import annotations

import hashlib
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from sparsebert.errors import DataError, reading
from sparsebert.scale.columns import SEPARATELY, Columns
from sparsebert.scale.input_files import InputFile, InputFiles
from sparsebert.tasks.expansion import Expansion, ParquetRows, decoded_bytes

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE, BYTES_AT_ONCE = 1024, 64 << 20
_BUFFER = 1 << 20  # bytes of a column, or of a file, read at a time
_TAIL = 8  # bytes at the end of a file: the length of the footer, and PAR1


def scan_parquet(
    inputs: InputFiles, file: InputFile, columns: Columns, rows_per_file: int
) -> tuple[pa.Schema, list[tuple[int, int, int, int, int]]]:
    """The columns of a file, and start, stop, rows, first line (0) and checksum of each part."""
    import pyarrow.parquet as pq

    with reading(file.name, DataError), inputs.filesystem.open_input_file(file.path) as source:
        opened = pq.ParquetFile(source)
        schema, rows = opened.schema_arrow, opened.metadata.num_rows
        Expansion(file.name, file.nbytes).rows(rows)
        checksum = _checksum(inputs, file, source)
    runs = []
    for start in range(0, rows, rows_per_file):
        stop = min(start + rows_per_file, rows)
        runs.append((start, stop, stop - start, 0, checksum))
    return columns.of_file(schema, file.name), runs


class ParquetReader:
    """A Parquet file, of which parts are read as tables of ``schema``.

    Parts that share a row group decode it only once if they are read in their order; rows of parts
    in between, which other workers read, are decoded and skipped. DataError if the file cannot be
    read.
    """

    def __init__(self, inputs: InputFiles, file: InputFile, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self.file = file
        self._is_local = inputs.is_local
        self._schema = schema
        with reading(file.name, DataError):
            source = inputs.filesystem.open_input_file(file.path)
            self._opened = pq.ParquetFile(source, buffer_size=_BUFFER)
            metadata = self._opened.metadata
            sizes = [metadata.row_group(each).num_rows for each in range(metadata.num_row_groups)]
        self._starts = [*accumulate(sizes, initial=0)]
        self._row = 0  # the next row that `_batches` gives, unless some are left in `_rest`
        self._rest: pa.RecordBatch | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def read(self, start: int, stop: int) -> Iterator[pa.Table]:
        """The rows from ``start`` to ``stop``, as tables of about `ROWS_AT_ONCE` rows."""
        with reading(self.file.name, DataError):
            waiting: list[pa.RecordBatch] = []
            for batch in self._rows(start, stop):
                waiting.append(batch)
                if _is_enough(waiting):
                    yield self._typed(waiting)
                    waiting = []
            if waiting:
                yield self._typed(waiting)

    def _rows(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        group = bisect_right(self._starts, start) - 1
        if not self._starts[group] <= self._row <= start:
            self._row, self._rest, self._batches = self._starts[group], None, iter(())
        yield from self._take(start, stop)
        if self._row < stop:  # the row groups that were open are decoded to their end
            groups = range(bisect_left(self._starts, self._row), bisect_left(self._starts, stop))
            self._batches = self._decode(groups)
            yield from self._take(start, stop)

    def _take(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Rows of the open row groups, up to ``stop`` and without those before ``start``."""
        while self._row < stop:
            batch = next(self._batches, None) if self._rest is None else self._rest
            if batch is None:
                return
            taken = batch.slice(0, stop - self._row)
            self._rest = batch.slice(len(taken)) if len(taken) < len(batch) else None
            skipped = max(start - self._row, 0)
            self._row += len(taken)
            if skipped < len(taken):
                yield taken.slice(skipped)

    def _decode(self, groups: Sequence[int]) -> Iterator[pa.RecordBatch]:
        file = self.file
        with Path(file.path).open("rb") if self._is_local else nullcontext() as headers:
            rows = ParquetRows(self._opened, headers, file.nbytes, file.name, groups)
        has = self._opened.schema_arrow.names
        return rows.batches([name for name in self._schema.names if name in has])

    def _typed(self, batches: Sequence[pa.RecordBatch]) -> pa.Table:
        """A table with the columns and types of the schema; missing columns are null."""
        import pyarrow as pa

        table = pa.Table.from_batches(batches)
        arrays = []
        for field in self._schema:
            if field.name not in table.column_names:
                arrays.append(pa.nulls(table.num_rows, field.type))
                continue
            try:
                arrays.append(table[field.name].cast(field.type))
            except pa.ArrowException as fault:
                raise DataError(
                    f"column '{field.name}' of {self.file.name} cannot be {field.type}, as other "
                    f"files require: {fault}. {SEPARATELY}"
                ) from fault
        return pa.Table.from_arrays(arrays, schema=self._schema)


def content_sha256(inputs: InputFiles, file: InputFile) -> str:
    """SHA-256 of a file on this machine's disks; of nothing for one that would be downloaded."""
    digest = hashlib.sha256()
    if inputs.is_local:
        with reading(file.name, DataError), Path(file.path).open("rb") as source:
            while block := source.read(_BUFFER):
                digest.update(block)
    return digest.hexdigest()


def is_same(inputs: InputFiles, file: InputFile, checksum: int) -> bool:
    """Whether a file still has the checksum that `scan_parquet` gave. DataError."""
    with reading(file.name, DataError), inputs.filesystem.open_input_file(file.path) as source:
        return _checksum(inputs, file, source) == checksum


def _checksum(inputs: InputFiles, file: InputFile, source: pa.NativeFile) -> int:
    """CRC-32 of the footer, and in an object store of the file's ETag or else time of change.

    The footer has sizes, offsets and statistics of all columns, but rows that change places can
    leave it as it was.
    """
    size = source.size()
    source.seek(max(size - _TAIL, 0))
    length = int.from_bytes(source.read(_TAIL)[:4], "little")
    source.seek(max(size - _TAIL - length, 0))
    checksum = zlib.crc32(source.read(length))
    if inputs.is_local:
        return checksum
    told = {key.lower(): value for key, value in (source.metadata() or {}).items()}
    changed = inputs.filesystem.get_file_info(file.path).mtime_ns
    return zlib.crc32(told.get(b"etag", str(changed).encode()), checksum)


def _is_enough(batches: Sequence[pa.RecordBatch]) -> bool:
    rows = sum(map(len, batches))
    return rows >= ROWS_AT_ONCE or sum(map(decoded_bytes, batches)) >= BYTES_AT_ONCE
