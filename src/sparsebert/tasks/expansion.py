"""What a file may become when it is read: in proportion to its size, or it is refused.

A kilobyte of gzip or Parquet can stand for gigabytes: a byte that is repeated, a dictionary's one
long text in every row. So compressed files are read in pieces, and no further than a limit that
texts never reach: English is compressed to a third or a quarter, rows of one form to a tenth.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sparsebert.errors import DataError
from sparsebert.tasks.parquet_pages import read_pages, told_pages

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_FREE, _TIMES = 32 << 20, 16  # bytes that are allowed for any file, and for each of its own
_FREE_ROWS, _BYTES_OF_ROW = 1_000_000, 4  # the same for rows: empty ones take next to nothing
_BLOCK = 1 << 20  # bytes decompressed at a time
_AT_ONCE, _ROWS_AT_ONCE = 64 << 20, 128  # bytes and rows of Parquet decoded at a time
MOST_COLUMNS = 1000
LONGEST_LINE = 64 << 20
"""Bytes of a line of text or JSON; longer ones are no rows."""


class Expansion:
    """Counts what is read of a file of ``size`` bytes, called ``source`` in messages."""

    def __init__(self, source: str | Path, size: int) -> None:
        self._source = source
        self._size = size
        self._limit = _FREE + _TIMES * size
        self._read = 0

    def add(self, count: int) -> None:
        """DataError if ``count`` more bytes are more than a file of this size should hold."""
        self._read += count
        if self._read > self._limit:
            raise DataError(
                f"{self._source} becomes more than {self._limit >> 20} MiB when it is read, "
                f"{_TIMES} times its size and more: store it uncompressed if it is right."
            )

    def rows(self, count: int) -> None:
        """DataError for more rows than a file of this size should hold."""
        most = _FREE_ROWS + self._size // _BYTES_OF_ROW
        if count > most:
            raise DataError(
                f"{self._source} has {self._size} bytes and claims {count} rows: it is damaged, or "
                "nearly all of them are empty."
            )


def gunzip(content: bytes, source: str | Path) -> bytes:
    """Decompressed gzip, of one member or several. DataError for damage, or if it grows too much.

    As the gzip module does it, zeros behind the last member are taken for padding.
    """
    expansion = Expansion(source, len(content))
    found: list[bytes] = []
    waiting = content
    try:
        while waiting:
            member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            while not member.eof:
                if not waiting:
                    raise DataError(f"{source} cannot be read as gzip: its end is missing.")
                block = member.decompress(waiting, _BLOCK)
                expansion.add(len(block))
                found.append(block)
                waiting = member.unconsumed_tail
            waiting = member.unused_data.lstrip(b"\0")
    except zlib.error as fault:
        raise DataError(f"{source} cannot be read as gzip: {fault}.") from fault
    return b"".join(found)


class ParquetRows:
    """The rows of some row groups of an open Parquet file, within the limits of its size.

    ``file`` is the file again, of ``size`` bytes, for the headers of its pages; None where reading
    them takes a request each, and the footer must be believed. ``source`` is its name in messages.
    """

    def __init__(
        self,
        opened: pq.ParquetFile,
        file: BinaryIO | None,
        size: int,
        source: str,
        groups: Sequence[int] | None = None,
    ) -> None:
        self._opened = opened
        self._groups = [*(range(opened.num_row_groups) if groups is None else groups)]
        self._expansion = Expansion(source, size)
        self._expansion.rows(opened.metadata.num_rows)
        for field in opened.schema_arrow:
            _refuse_extended_dictionaries(field.type, source)
        if file is None:
            pages = told_pages(opened.metadata, self._groups)
        else:
            pages = read_pages(opened.metadata, self._groups, file, size)
        Expansion(source, size).add(pages.total)
        # A page may hold one text and its repetition in every row.
        self._rows = max(1, min(_ROWS_AT_ONCE, _AT_ONCE // max(pages.largest, 1)))

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All columns or some, a few rows at a time. DataError if they grow too much."""
        for batch in self._opened.iter_batches(
            self._rows, row_groups=self._groups, columns=columns, use_threads=False
        ):
            self._expansion.add(decoded_bytes(batch))
            batch.validate(full=True)  # the library checks neither UTF-8 nor offsets by itself
            yield batch


def _refuse_extended_dictionaries(
    kind: pa.DataType, source: str, *, extended: bool = False
) -> None:
    """DataError for a dictionary within an extension type: Arrow aborts where it reads one."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind) and extended:
        raise DataError(
            f"{source} cannot be read: a column is a dictionary within an extension type. Store it "
            "as plain values."
        )
    if isinstance(kind, pa.BaseExtensionType):
        _refuse_extended_dictionaries(kind.storage_type, source, extended=True)
    else:
        for place in range(kind.num_fields):
            inner = kind.field(place).type
            _refuse_extended_dictionaries(inner, source, extended=extended)


def decoded_bytes(batch: pa.RecordBatch) -> int:
    """Bytes of some rows, with the texts of a dictionary in every row that refers to them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    total = 0
    for column in batch.columns:
        total += int(column.nbytes)
        for leaf in _leaves(column):
            if pa.types.is_dictionary(leaf.type) and _is_binary(leaf.type.value_type):
                total -= int(leaf.dictionary.nbytes)
                total += pc.sum(pc.binary_length(leaf.dictionary).take(leaf.indices)).as_py() or 0
    return total


def _leaves(column: pa.Array) -> Iterator[pa.Array]:
    """The arrays of plain values inside lists, maps and structs."""
    import pyarrow as pa

    if pa.types.is_map(column.type):
        offsets = column.offsets  # of maps there is no flatten
        first, count = offsets[0].as_py(), offsets[-1].as_py() - offsets[0].as_py()
        inner = [column.keys.slice(first, count), column.items.slice(first, count)]
    elif pa.types.is_struct(column.type):
        inner = column.flatten()
    elif pa.types.is_nested(column.type):
        inner = [column.flatten()]
    else:
        yield column
        return
    for each in inner:
        yield from _leaves(each)


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return any(
        matches(kind)
        for matches in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_binary,
            pa.types.is_large_binary,
        )
    )
