"""Protection against decompression bombs: how much a file may expand to when it is read.

A kilobyte of gzip or Parquet can expand to gigabytes: one byte repeated, or a dictionary's one long
text in every row. Compressed files are therefore read in pieces, up to a limit that real data never
reaches: English compresses to a third or a quarter of its size, uniform rows to a tenth.
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

_FREE, _TIMES = 32 << 20, 16  # a file of n bytes may expand to _FREE + _TIMES * n bytes
_FREE_ROWS, _BYTES_OF_ROW = 1_000_000, 4  # and have _FREE_ROWS + n / _BYTES_OF_ROW rows
# Bytes that zlib gets and makes at a time. It copies what it has not read for each member and each
# block of output, so large pieces would take quadratic time.
_INPUT, _OUTPUT = 1 << 12, 1 << 16
_AT_ONCE, _ROWS_AT_ONCE = 64 << 20, 128  # bytes and rows of Parquet decoded at a time
MOST_COLUMNS = 1000
LONGEST_LINE = 64 << 20
"""Maximum length of a line of text or JSON, in bytes; a longer one cannot be a row."""


class Expansion:
    """Counts what is read from a file of ``size`` bytes, which messages call ``source``."""

    def __init__(self, source: str | Path, size: int) -> None:
        self._source = source
        self._size = size
        self._limit = _FREE + _TIMES * size
        self._read = 0

    def add(self, count: int) -> None:
        """Count ``count`` more bytes. DataError if that is too many for a file of this size."""
        self._read += count
        if self._read > self._limit:
            raise DataError(
                f"{self._source} expands to more than {self._limit >> 20} MiB when read, over "
                f"{_TIMES} times its size: if this is correct, store it uncompressed."
            )

    def rows(self, count: int) -> None:
        """DataError for more rows than a file of this size can plausibly have."""
        most = _FREE_ROWS + self._size // _BYTES_OF_ROW
        if count > most:
            raise DataError(
                f"{self._source} has {self._size} bytes but claims to have {count} rows: it is "
                "damaged, or nearly all rows are empty."
            )


def inflated(content: bytes, wbits: int) -> Iterator[bytes]:
    """Decompress gzip or zlib, as ``wbits`` says to the zlib module, in blocks of up to 64 KiB.

    There may be several members, and zeros after the last are padding, as in the gzip module.
    zlib.error if it is damaged or truncated.
    """
    member = zlib.decompressobj(wbits=wbits)
    for start in range(0, len(content), _INPUT):
        waiting = content[start : start + _INPUT]
        while waiting:
            if member.eof:
                waiting = waiting.lstrip(b"\0")
                if not waiting:
                    break
                member = zlib.decompressobj(wbits=wbits)
            yield member.decompress(waiting, _OUTPUT)
            waiting = member.unused_data if member.eof else member.unconsumed_tail
    if content and not member.eof:
        raise zlib.error("it is truncated")


def gunzip(content: bytes, source: str | Path) -> bytes:
    """Decompress gzip of one or more members. DataError if it is damaged or expands too much."""
    expansion = Expansion(source, len(content))
    found: list[bytes] = []
    try:
        for block in inflated(content, 16 + zlib.MAX_WBITS):
            expansion.add(len(block))
            found.append(block)
    except zlib.error as fault:
        raise DataError(f"{source} cannot be read as gzip: {fault}.") from fault
    return b"".join(found)


class ParquetRows:
    """The rows of some row groups of an open Parquet file, within the limits for its size.

    ``file`` is a second handle on the file, of ``size`` bytes, for reading its page headers. It is
    None for remote files, where each header would cost a request: then the footer is trusted.
    ``source`` is the file's name in messages.
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
        # Every row of a batch may repeat one text that fills a page.
        self._rows = max(1, min(_ROWS_AT_ONCE, _AT_ONCE // max(pages.largest, 1)))

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All columns or some, a few rows at a time. DataError if they expand too much."""
        for batch in self._opened.iter_batches(
            self._rows, row_groups=self._groups, columns=columns, use_threads=False
        ):
            self._expansion.add(decoded_bytes(batch))
            batch.validate(full=True)  # pyarrow itself checks neither UTF-8 nor offsets
            yield batch


def _refuse_extended_dictionaries(
    kind: pa.DataType, source: str, *, extended: bool = False
) -> None:
    """DataError for a dictionary within an extension type, on which Arrow aborts the process."""
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
    """Size of some rows in bytes, counting a dictionary's text once for each row that uses it."""
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
        offsets = column.offsets  # map arrays have no flatten()
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
