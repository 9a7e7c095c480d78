"""The compressed form of a pruned matrix: its kept values, and bits that say where they belong.

The columns are split into *panels* of ``panel_columns(pattern)`` (the largest multiple of M up to
64: one panel of activations for 128 tokens fills L1). Panels are stored one after another, each
with the kept values and one integer of bits for every row, so that a kernel which walks panel after
panel reads memory sequentially.

If rows share their inputs, a block of them is a dense matrix and is stored as one: the kept values
row by row, and one bit per pair for the whole block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sparsebert.errors import PatternError
from sparsebert.patterns import (
    MOST_IN_GROUP,
    ONE_OF_TWO,
    Array,
    BoolMatrix,
    Pattern,
    is_whole,
    mask_from_zeros,
    pack_mask,
    spread_over_rows,
    unpack_mask,
)

Word = type[np.uint8] | type[np.uint32] | type[np.uint64]


def pair_mask(odd: BoolMatrix) -> BoolMatrix:
    """The 1:2 mask ``[rows, 2 x pairs]`` that keeps the odd (right) weight of a pair where True."""
    return np.stack((~odd, odd), axis=-1).reshape(len(odd), -1)


def shared_bits(mask: BoolMatrix, pattern: Pattern) -> npt.NDArray[np.uint8]:
    """The bits of a shared pattern: for each block of rows, one row of `pack_mask` over pairs."""
    return pack_mask(mask[:: pattern.shared_rows, 1::2])


def shared_mask(bits: Array, pattern: Pattern, rows: int, columns: int) -> BoolMatrix:
    """Inverse of `shared_bits`: the full mask ``[rows, columns]``."""
    mask: BoolMatrix = spread_over_rows(pair_mask(unpack_mask(bits, columns // 2)), pattern, rows)
    return mask


def check_shared_bits(bits: Array, columns: int) -> None:
    """PatternError if a bit beyond the last pair is set; the shape must be right."""
    last = columns // 2 % 8
    if last and np.any(bits[:, -1] >> np.uint8(last)):
        raise PatternError("the stored bits point beyond the last column.")


def panel_columns(pattern: Pattern) -> int:
    """Columns in one panel of the compressed form: the largest multiple of M up to 64."""
    return MOST_IN_GROUP // pattern.m * pattern.m


@dataclass(frozen=True)
class Compressed:
    """A pruned ``[rows, columns]`` matrix as its kept values and their positions.

    ``values`` is ``[panels, rows, panel_columns / m * n]`` of the weight's dtype; in each row the
    kept values are in column order, and the last panel is padded with zeros.
    ``bits`` is ``[panels, rows]``: for 1:2 a uint32 whose bit p is set if pair p keeps its odd
    (right) weight; for any other pattern a uint64 whose bit c is set if column c is kept.

    If rows share the pattern, ``values`` is ``[rows, columns / 2]``, and ``bits`` is uint8
    ``[blocks, ceil(columns / 16)]`` as made by `shared_bits`.
    """

    pattern: Pattern
    columns: int
    values: Array
    bits: Array

    @property
    def rows(self) -> int:
        return int(self.values.shape[-2])

    @property
    def parts(self) -> dict[str, Array]:
        """The arrays by name."""
        return {"values": self.values, "bits": self.bits}


class CompressedShapes(NamedTuple):
    """Shapes of the arrays of `Compressed`, and the type of ``bits``."""

    values: tuple[int, ...]
    bits: tuple[int, int]
    bits_type: Word


def compressed_shapes(pattern: Pattern, rows: int, columns: int) -> CompressedShapes:
    """Shapes and bit type of a compressed ``[rows, columns]`` matrix."""
    if pattern.shared_rows > 1:
        bits = (pattern.blocks(rows), -(-columns // 16))
        return CompressedShapes((rows, columns // 2), bits, np.uint8)
    width = panel_columns(pattern)
    panels = -(-columns // width)
    bits_type = np.uint32 if pattern == ONE_OF_TWO else np.uint64
    values = (panels, rows, width // pattern.m * pattern.n)
    return CompressedShapes(values, (panels, rows), bits_type)


def compress(weight: Array, pattern: Pattern, mask: BoolMatrix | None = None) -> Compressed:
    """Compress a pruned matrix without loss; `decompress` restores it.

    ``mask`` says which n weights of a group to keep if fewer are non-zero; without it, the group is
    filled up from the left. Raises PatternError if a weight outside the mask is not zero.
    """
    if mask is None:
        mask = mask_from_zeros(weight, pattern)
    elif not is_whole(mask, pattern) or mask.shape != weight.shape:
        raise PatternError(f"the mask is not a complete {pattern} mask of the weight's shape.")
    elif bool(np.any(weight[~mask])):
        raise PatternError("a weight outside the mask is not zero.")
    rows, columns = weight.shape
    if pattern.shared_rows > 1:
        kept_values = weight[mask].reshape(rows, columns // 2)
        return Compressed(pattern, columns, kept_values, shared_bits(mask, pattern))
    (panels, _, kept), _, bits_type = compressed_shapes(pattern, rows, columns)
    width = panel_columns(pattern)

    flat = np.zeros((rows, panels * kept), dtype=weight.dtype)
    flat[:, : columns // pattern.m * pattern.n] = weight[mask].reshape(rows, -1)
    values = np.ascontiguousarray(flat.reshape(rows, panels, kept).transpose(1, 0, 2))

    filled = np.zeros((rows, panels * width), dtype=bool)
    filled[:, :columns] = mask
    marks = (filled[:, 1::2] if pattern == ONE_OF_TWO else filled).reshape(rows, panels, -1)
    padded = np.zeros((rows, panels, bits_type().itemsize * 8), dtype=bool)
    padded[..., : marks.shape[2]] = marks
    words = np.packbits(padded, axis=-1, bitorder="little").view(
        np.dtype(bits_type).newbyteorder("<")
    )
    bits = np.ascontiguousarray(words.reshape(rows, panels).T).astype(bits_type)
    return Compressed(pattern, columns, values, bits)


def compressed_mask(packed: Compressed) -> BoolMatrix:
    """The full mask ``[rows, columns]`` that the bits of a compressed matrix encode.

    Raises PatternError for bits or shapes that `compress` does not write.
    """
    check_compressed(packed)
    pattern, rows, columns = packed.pattern, packed.rows, packed.columns
    if pattern.shared_rows > 1:
        return shared_mask(packed.bits, pattern, rows, columns)
    words = np.ascontiguousarray(packed.bits.T)
    words = words.astype(words.dtype.newbyteorder("<"), copy=False)
    octets = words.view(np.uint8).reshape(rows, words.shape[1], -1)
    marks = np.unpackbits(octets, axis=-1, bitorder="little").view(bool)
    if pattern == ONE_OF_TWO:
        return pair_mask(marks.reshape(rows, -1)[:, : columns // 2])
    width = panel_columns(pattern)
    return np.ascontiguousarray(marks[..., :width].reshape(rows, -1)[:, :columns])


def decompress(packed: Compressed) -> Array:
    """The dense ``[rows, columns]`` matrix that was compressed, with pruned weights as +0.0.

    Raises PatternError for bits or shapes that `compress` does not write.
    """
    mask = compressed_mask(packed)
    rows, columns = mask.shape
    kept = columns // packed.pattern.m * packed.pattern.n
    weight = np.zeros((rows, columns), dtype=packed.values.dtype)
    values = packed.values
    if packed.pattern.shared_rows == 1:  # in panels
        values = values.transpose(1, 0, 2).reshape(rows, -1)[:, :kept]
    weight[mask] = values.reshape(-1)
    return weight


def check_compressed(packed: Compressed) -> None:
    """Raise PatternError unless shapes, bits and padding are as `compress` writes them.

    Cheap enough for every load: it reads the bits and the last panel's padding, but no other
    values. A matrix that passes can be multiplied without further checks, since no bit points
    outside it.
    """
    pattern, rows, columns = packed.pattern, packed.rows, packed.columns
    if rows == 0 or columns <= 0 or columns % pattern.m:
        raise PatternError(f"a [{rows}, {columns}] matrix cannot be {pattern}.")
    values_shape, bits_shape, bits_type = compressed_shapes(pattern, rows, columns)
    if packed.values.shape != values_shape or packed.bits.shape != bits_shape:
        raise PatternError(
            f"compressed shapes {list(packed.values.shape)} and {list(packed.bits.shape)} do not "
            f"describe a {pattern} matrix with {columns} inputs."
        )
    if packed.bits.dtype != bits_type:
        raise PatternError(f"the bits of a {pattern} matrix must be {bits_type.__name__}.")
    if pattern.shared_rows > 1:
        return check_shared_bits(packed.bits, columns)
    last = columns - (bits_shape[0] - 1) * panel_columns(pattern)  # columns in the last panel
    if np.any(packed.values[-1, :, last // pattern.m * pattern.n :]):
        raise PatternError("the padding after the last column is not zero.")
    step = 2 if pattern == ONE_OF_TWO else 1  # columns per bit
    for panels, used in ((packed.bits[:-1], panel_columns(pattern)), (packed.bits[-1:], last)):
        beyond = used // step
        if beyond < 8 * panels.itemsize and np.any(panels >> bits_type(beyond)):
            raise PatternError("the stored bits point beyond the last column.")
        if pattern != ONE_OF_TWO and not _each_group_keeps_n(panels, used, pattern):
            raise PatternError(f"the stored bits do not form a complete {pattern} mask.")


def _each_group_keeps_n(words: Array, columns: int, pattern: Pattern) -> bool:
    if pattern.m in (4, 8):  # the usual cases: count all groups of a word at once, in place
        quarter, half = np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
        counts = words - (words >> np.uint64(1) & np.uint64(0x5555555555555555))
        counts = (counts & quarter) + (counts >> np.uint64(2) & quarter)
        if pattern.m == 8:
            counts = (counts + (counts >> np.uint64(4))) & half
        wanted = sum(pattern.n << start for start in range(0, columns, pattern.m))
        return bool(np.all(counts == np.uint64(wanted)))
    one = words.dtype.type(1)
    for start in range(0, columns, pattern.m):
        counts = np.zeros(words.shape, dtype=words.dtype)
        for column in range(start, start + pattern.m):
            counts += (words >> words.dtype.type(column)) & one
        if np.any(counts != pattern.n):
            return False
    return True
