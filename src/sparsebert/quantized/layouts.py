"""The memory layouts of int8 matrices (docs/packed-format.md), each with a cheap validity check.

Linear layers are stored in *tiles* of 16 rows, and each tile in *groups* of 8 inputs (4 pairs),
padded with zeros. A layout knows its shapes before there are values (a file's header is written
first), and converts from row-major int8 and back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sparsebert.compressed import (
    Compressed,
    check_compressed,
    check_shared_bits,
    compress,
    compressed_mask,
    compressed_shapes,
    decompress,
    pair_mask,
    shared_bits,
    shared_mask,
)
from sparsebert.errors import PatternError
from sparsebert.patterns import ONE_OF_TWO, BoolMatrix, Pattern

Array = npt.NDArray[Any]
Int8 = npt.NDArray[np.int8]
Shapes = dict[str, tuple[type[np.generic], tuple[int, ...]]]

TILE = 16  # rows
GROUP = 8  # inputs


def cut_tiles(matrix: Array, width: int) -> Array:
    """``[rows, columns]``, padded with zeros, as ``[tiles, groups, 16, width]``."""
    rows, columns = matrix.shape
    tiles, groups = -(-rows // TILE), -(-columns // width)
    filled = np.zeros((tiles * TILE, groups * width), matrix.dtype)
    filled[:rows, :columns] = matrix
    tiled = filled.reshape(tiles, TILE, groups, width).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(tiled)


def join_tiles(tiles: Array) -> Array:
    """``[tiles, groups, 16, width]`` as ``[tiles * 16, groups * width]``."""
    count, groups, height, width = tiles.shape
    rows: Array = tiles.transpose(0, 2, 1, 3).reshape(count * height, groups * width)
    return rows


def check_zero_beyond(tiles: Array, rows: int, columns: int) -> None:
    """PatternError unless ``[tiles, groups, 16, width]`` is zero beyond ``[rows, columns]``."""
    count, groups, height, width = tiles.shape
    below, right = rows - (count - 1) * height, columns - (groups - 1) * width
    if np.any(tiles[-1, :, below:]) or np.any(tiles[:, -1, :, right:]):
        raise PatternError("the padding after the last row or column is not zero.")


@dataclass(frozen=True)
class Quantized(ABC):
    """An int8 matrix with ``columns`` inputs; ``scales`` is float32 ``[rows]``.

    ``pattern`` is the N:M pattern that the layout exploits, ``bits`` says which weights it keeps;
    both are None if every weight is stored.
    """

    layout: ClassVar[str]
    columns: int
    values: Array
    scales: Array
    bits: Array | None = None
    pattern: Pattern | None = None

    @property
    def rows(self) -> int:
        return len(self.scales)

    @property
    def parts(self) -> dict[str, Array]:
        """The arrays by name, in the order of `shapes`."""
        bits = {} if self.bits is None else {"bits": self.bits}
        return {"values": self.values, **bits, "scales": self.scales}

    @staticmethod
    @abstractmethod
    def shapes(rows: int, columns: int, pattern: Pattern | None) -> Shapes:
        """Type and shape of each part. PatternError if the layout does not fit such a matrix."""

    @staticmethod
    @abstractmethod
    def arrange(values: Int8, pattern: Pattern | None, mask: BoolMatrix | None) -> dict[str, Array]:
        """All parts but the scales, from row-major int8 ``[rows, columns]`` pruned by ``mask``."""

    @abstractmethod
    def row_major(self) -> Int8:
        """The int8 values ``[rows, columns]``, zeros where nothing is kept."""

    def mask(self) -> BoolMatrix | None:
        """The full mask ``[rows, columns]`` of the kept weights; None without a pattern."""
        return None

    @abstractmethod
    def check_filling(self) -> None:
        """PatternError unless the bits are valid and all padding is zero; shapes must be right."""


@dataclass(frozen=True)
class QuantizedPairs(Quantized):
    """1:2. ``values`` int8 ``[tiles, groups, 16, 4]``: at [t, g, r, i] what row 16t + r keeps of
    pair 4g + i; ``bits`` uint64 ``[tiles, groups]``: bit 4r + i is set where that is the odd input.
    """

    layout = "pairs"

    @staticmethod
    def shapes(rows: int, columns: int, pattern: Pattern | None) -> Shapes:
        if pattern != ONE_OF_TWO or columns % 2:
            raise PatternError(f"the layout 'pairs' does not fit {pattern} with {columns} inputs.")
        tiles, groups = -(-rows // TILE), -(-columns // GROUP)
        return {
            "values": (np.int8, (tiles, groups, TILE, GROUP // 2)),
            "bits": (np.uint64, (tiles, groups)),
            "scales": (np.float32, (rows,)),
        }

    @staticmethod
    def arrange(values: Int8, pattern: Pattern | None, mask: BoolMatrix | None) -> dict[str, Array]:
        assert mask is not None
        odd = mask[:, 1::2]
        kept = np.where(odd, values[:, 1::2], values[:, 0::2])
        marks = np.packbits(cut_tiles(odd, GROUP // 2), axis=None, bitorder="little")
        tiled = cut_tiles(kept, GROUP // 2)
        bits = marks.view("<u8").astype(np.uint64).reshape(tiled.shape[:2])
        return {"values": tiled, "bits": bits}

    def row_major(self) -> Int8:
        odd = self._odd()
        kept = join_tiles(self.values)[: self.rows, : odd.shape[1]]
        values = np.zeros((self.rows, self.columns), np.int8)
        values[:, 0::2] = np.where(odd, 0, kept)
        values[:, 1::2] = np.where(odd, kept, 0)
        return values

    def mask(self) -> BoolMatrix:
        return pair_mask(self._odd())

    def _odd(self) -> BoolMatrix:
        assert self.bits is not None
        marks = np.unpackbits(
            np.ascontiguousarray(self.bits, "<u8").view(np.uint8), bitorder="little"
        )
        odd = join_tiles(marks.reshape(*self.bits.shape, TILE, GROUP // 2))
        return odd[: self.rows, : self.columns // 2].astype(bool)

    def check_filling(self) -> None:
        assert self.bits is not None
        check_zero_beyond(self.values, self.rows, self.columns // 2)
        marks = np.uint64((1 << 64) - 1)
        rows, pairs = self.rows % TILE, self.columns % GROUP // 2
        if rows and np.any(self.bits[-1] & (marks << np.uint64(4 * rows))):
            raise PatternError("the stored bits point beyond the last row.")
        beyond = sum(1 << (4 * row + pair) for row in range(TILE) for pair in range(pairs, 4))
        if pairs and np.any(self.bits[:, -1] & np.uint64(beyond)):
            raise PatternError("the stored bits point beyond the last column.")


@dataclass(frozen=True)
class QuantizedSharedPairs(Quantized):
    """1:2 shared by rows: what they keep is a dense matrix. ``values`` int8 ``[tiles, 2 *
    ceil(columns / 16), 16, 4]``: at [t, f, r, i] what row 16t + r keeps of pair 4f + i; ``bits`` as
    made by `compressed.shared_bits`.
    """

    layout = "shared-pairs"

    @staticmethod
    def shapes(rows: int, columns: int, pattern: Pattern | None) -> Shapes:
        if pattern is None or pattern.shared_rows == 1 or columns % 2:
            raise PatternError(
                f"the layout 'shared-pairs' does not fit {pattern} with {columns} inputs."
            )
        tiles, eights = -(-rows // TILE), -(-columns // 16)
        return {
            "values": (np.int8, (tiles, 2 * eights, TILE, GROUP // 2)),
            "bits": (np.uint8, (pattern.blocks(rows), eights)),
            "scales": (np.float32, (rows,)),
        }

    @staticmethod
    def arrange(values: Int8, pattern: Pattern | None, mask: BoolMatrix | None) -> dict[str, Array]:
        assert pattern is not None
        assert mask is not None
        kept = values[mask].reshape(len(values), -1)
        even = np.pad(kept, ((0, 0), (0, -kept.shape[1] % GROUP)))
        return {"values": cut_tiles(even, GROUP // 2), "bits": shared_bits(mask, pattern)}

    def row_major(self) -> Int8:
        values = np.zeros((self.rows, self.columns), np.int8)
        kept = join_tiles(self.values)[: self.rows, : self.columns // 2]
        values[self.mask()] = kept.reshape(-1)
        return values

    def mask(self) -> BoolMatrix:
        assert self.bits is not None
        assert self.pattern is not None
        return shared_mask(self.bits, self.pattern, self.rows, self.columns)

    def check_filling(self) -> None:
        assert self.bits is not None
        halves = self.values.reshape(len(self.values), -1, 2, TILE, GROUP // 2)
        before = 4 * (halves.shape[1] - 1)  # pairs in each half before its last four
        last = self.columns // 2 - 2 * before  # pairs, 1 to 8
        check_zero_beyond(halves[:, :, 0], self.rows, before + min(last, 4))
        check_zero_beyond(halves[:, :, 1], self.rows, before + max(last - 4, 0))
        check_shared_bits(self.bits, self.columns)


@dataclass(frozen=True)
class QuantizedDense(Quantized):
    """Dense. ``values`` int8 ``[tiles, 2 * groups, 16, 4]``: at [t, 2g, r] the even inputs of group
    g in row 16t + r (8g, 8g + 2, 8g + 4, 8g + 6), at [t, 2g + 1, r] the odd ones.
    """

    layout = "dense"

    @staticmethod
    def shapes(rows: int, columns: int, pattern: Pattern | None) -> Shapes:
        if pattern is not None:
            raise PatternError(f"the layout 'dense' does not fit {pattern}.")
        tiles, groups = -(-rows // TILE), -(-columns // GROUP)
        return {
            "values": (np.int8, (tiles, 2 * groups, TILE, GROUP // 2)),
            "scales": (np.float32, (rows,)),
        }

    @staticmethod
    def arrange(values: Int8, pattern: Pattern | None, mask: BoolMatrix | None) -> dict[str, Array]:
        tiles = cut_tiles(values, GROUP)  # [tiles, groups, 16, 8]
        halves = tiles.reshape(*tiles.shape[:3], GROUP // 2, 2).transpose(0, 1, 4, 2, 3)
        return {"values": halves.reshape(len(tiles), -1, TILE, GROUP // 2)}

    def row_major(self) -> Int8:
        halves = self.values.reshape(len(self.values), -1, 2, TILE, GROUP // 2)
        tiles = halves.transpose(0, 1, 3, 4, 2).reshape(len(halves), -1, TILE, GROUP)
        return np.ascontiguousarray(join_tiles(tiles)[: self.rows, : self.columns])

    def check_filling(self) -> None:
        halves = self.values.reshape(len(self.values), -1, 2, TILE, GROUP // 2)
        check_zero_beyond(halves[:, :, 0], self.rows, -(-self.columns // 2))
        check_zero_beyond(halves[:, :, 1], self.rows, self.columns // 2)


@dataclass(frozen=True)
class QuantizedPanels(Quantized):
    """Any other N:M. ``values`` int8 and ``bits`` uint64 are those of `compressed.Compressed`."""

    layout = "panels"

    @staticmethod
    def shapes(rows: int, columns: int, pattern: Pattern | None) -> Shapes:
        if pattern is None or pattern.m == 2 or columns % pattern.m:
            raise PatternError(f"the layout 'panels' does not fit {pattern} with {columns} inputs.")
        values, bits, bits_type = compressed_shapes(pattern, rows, columns)
        return {
            "values": (np.int8, values),
            "bits": (bits_type, bits),
            "scales": (np.float32, (rows,)),
        }

    @staticmethod
    def arrange(values: Int8, pattern: Pattern | None, mask: BoolMatrix | None) -> dict[str, Array]:
        assert pattern is not None
        return compress(values, pattern, mask).parts

    def row_major(self) -> Int8:
        return decompress(self._compressed())

    def mask(self) -> BoolMatrix:
        return compressed_mask(self._compressed())

    def check_filling(self) -> None:
        check_compressed(self._compressed())

    def _compressed(self) -> Compressed:
        assert self.pattern is not None
        assert self.bits is not None
        return Compressed(self.pattern, self.columns, self.values, self.bits)


@dataclass(frozen=True)
class QuantizedTable(Quantized):
    """A table whose rows are looked up: ``values`` int8 ``[rows, columns]``, row-major."""

    layout = "table"

    @staticmethod
    def shapes(rows: int, columns: int, pattern: Pattern | None) -> Shapes:
        if pattern is not None:
            raise PatternError(f"the layout 'table' does not fit {pattern}.")
        return {"values": (np.int8, (rows, columns)), "scales": (np.float32, (rows,))}

    @staticmethod
    def arrange(values: Int8, pattern: Pattern | None, mask: BoolMatrix | None) -> dict[str, Array]:
        return {"values": values}

    def row_major(self) -> Int8:
        return self.values

    def check_filling(self) -> None:
        pass


LAYOUTS: dict[str, type[Quantized]] = {
    kind.layout: kind
    for kind in (
        QuantizedPairs,
        QuantizedSharedPairs,
        QuantizedDense,
        QuantizedPanels,
        QuantizedTable,
    )
}


def linear_layout(pattern: Pattern | None) -> type[Quantized]:
    """The layout of a linear layer with this pattern; None means dense."""
    if pattern is None:
        return QuantizedDense
    if pattern.shared_rows > 1:
        return QuantizedSharedPairs
    return QuantizedPairs if pattern == ONE_OF_TWO else QuantizedPanels
