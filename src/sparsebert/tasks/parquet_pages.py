"""The sizes of a Parquet file's pages, from their own headers.

A page's header says how many bytes the reader allocates to decompress it. The footer has totals for
whole columns, but these may be false. Headers are structs in Thrift's compact protocol
(thrift-compact-protocol.md); only two of their numbers are needed here, and the rest is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_UNCOMPRESSED, _COMPRESSED = 2, 3  # fields of a PageHeader (parquet.thrift)
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_NUMBERS = (4, 5, 6)  # integers of 16, 32 and 64 bits, all written as varints
_DEEPEST = 16


@dataclass(frozen=True)
class Pages:
    """Decompressed size in bytes of all pages together, and of the largest page."""

    total: int
    largest: int


def told_pages(metadata: pq.FileMetaData, groups: Sequence[int]) -> Pages:
    """The total that the footer gives for some row groups, assuming pages of at most 1 MiB."""
    total = sum(metadata.row_group(group).total_byte_size for group in groups)
    return Pages(total, 1 << 20)


def read_pages(
    metadata: pq.FileMetaData, groups: Sequence[int], file: BinaryIO, size: int
) -> Pages:
    """Walk the pages of some row groups in a file of ``size`` bytes. ValueError if damaged."""
    total = largest = stored = 0
    for group in groups:
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            if not column.num_values and not column.data_page_offset:
                continue  # the table is empty
            begins = [column.data_page_offset]
            if column.has_dictionary_page and column.dictionary_page_offset:
                begins.append(column.dictionary_page_offset)
            at = min(begins)
            end = at + column.total_compressed_size
            stored += column.total_compressed_size
            if not 0 <= at <= end <= size or stored > size:
                raise ValueError("its columns extend beyond the end of the file")
            while at < end:
                file.seek(at)
                fields = _Header(file).numbers()
                room, length = fields.get(_UNCOMPRESSED, -1), fields.get(_COMPRESSED, -1)
                if room < 0 or length < 0:
                    raise ValueError("a page header has no valid size")
                total, largest = total + room, max(largest, room)
                at = file.tell() + length
    return Pages(total, largest)


class _Header:
    """A struct in the compact protocol, read from the file's current position up to its end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def numbers(self, depth: int = 0) -> dict[int, int]:
        """The integers among the struct's fields, by field id."""
        if depth > _DEEPEST:
            raise ValueError("a page header is nested too deeply")
        found: dict[int, int] = {}
        field = 0
        while kind := self._byte():
            step, kind = kind >> 4, kind & 15
            field = field + step if step else self._number()
            if kind in _NUMBERS:
                found[field] = self._number()
            elif kind not in (_TRUE, _FALSE):  # a boolean's value is part of its type
                self._skip(kind, depth)
        return found

    def _skip(self, kind: int, depth: int) -> None:
        if kind in _NUMBERS:
            self._number()
        elif kind in (_TRUE, _FALSE, _BYTE):
            self._take(1)
        elif kind == _DOUBLE:
            self._take(8)
        elif kind == _BINARY:
            self._take(self._varint())
        elif kind in (_LIST, _SET):
            head = self._byte()
            for _ in range(self._varint() if head >> 4 == 15 else head >> 4):
                self._skip(head & 15, depth + 1)
        elif kind == _MAP:
            if count := self._varint():
                kinds = self._byte()
                for _ in range(count):
                    self._skip(kinds >> 4, depth + 1)
                    self._skip(kinds & 15, depth + 1)
        elif kind == _STRUCT:
            self.numbers(depth + 1)
        else:
            raise ValueError("a page header is damaged")

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise ValueError("a page header extends beyond the end of the file")
        return data

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            part = self._byte()
            value |= (part & 127) << shift
            if part < 128:
                return value
        raise ValueError("a page header is damaged")

    def _number(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)  # zigzag decoding
