"""What N:M sparsity means: patterns, masks and their checks.

In an ``N:M`` matrix, every group of M adjacent weights along the input dimension (the columns of a
linear layer's ``[out, in]`` weight) has at most N non-zeros; the reference pattern of this project
is 1:2, one weight of each adjacent pair. Blocks of adjacent rows (outputs) may share a 1:2 pattern:
then they all keep the same input of each pair, and a block is a dense product over half of the
inputs. Code that ignores blocks can treat it as any other 1:2 matrix. Everything here is numpy on a
single matrix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsebert.errors import PatternError

BoolMatrix = npt.NDArray[np.bool_]
Matrix = npt.NDArray[np.floating[Any]]
Array = npt.NDArray[Any]

MOST_IN_GROUP = 64  # columns: one bit each must fit a 64-bit word (see `compressed`)
_ROWS_UNIT = 16  # rows that the engine multiplies together, which must keep the same inputs
_MAX_SHARED = 4096


@dataclass(frozen=True)
class Pattern:
    """At most ``n`` non-zero weights in every group of ``m`` adjacent inputs.

    With ``shared_rows`` above 1, each block of that many adjacent rows, counted from the first,
    keeps the same inputs; the last block of a matrix may be smaller. Raises PatternError for
    numbers that do not make a valid pattern.
    """

    n: int
    m: int
    shared_rows: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.n < self.m <= MOST_IN_GROUP:
            raise PatternError(
                f"{self.ratio} is not a usable pattern: N:M needs 1 <= N < M <= {MOST_IN_GROUP}, "
                "for example 1:2 or 2:4."
            )
        rows = self.shared_rows
        if rows == 1:
            return
        if rows % _ROWS_UNIT or not _ROWS_UNIT <= rows <= _MAX_SHARED:
            raise PatternError(
                f"a pattern cannot be shared by {rows} rows: choose a multiple of {_ROWS_UNIT} up "
                f"to {_MAX_SHARED}, for example 128, or 1 to give each row its own pattern."
            )
        if (self.n, self.m) != (1, 2):
            raise PatternError(
                f"{self.ratio} cannot be shared by rows, only 1:2 can: choose 1:2, or omit "
                "shared_rows."
            )

    @classmethod
    def parse(cls, text: str, shared_rows: int = 1) -> Pattern:
        """Parse ``"1:2"``, or what `str` returns. Raises PatternError for anything else."""
        form = r"\s*(\d{1,3})\s*:\s*(\d{1,3})\s*(?:shared by (\d{1,4}) rows)?\s*"
        found = re.fullmatch(form, text)
        if found is None:
            raise PatternError(f"'{text}' is not a pattern: write N:M, for example 1:2 or 2:4.")
        if found[3] and shared_rows not in (1, int(found[3])):
            raise PatternError(f"'{text}' cannot be shared by {shared_rows} rows as well.")
        return cls(int(found[1]), int(found[2]), int(found[3] or shared_rows))

    def __str__(self) -> str:
        if self.shared_rows == 1:
            return self.ratio
        return f"{self.ratio} shared by {self.shared_rows} rows"

    @property
    def ratio(self) -> str:
        """``"N:M"``, which is enough for tools that do not look at blocks of rows."""
        return f"{self.n}:{self.m}"

    @property
    def density(self) -> float:
        """Share of weights that are kept, N / M."""
        return self.n / self.m

    def blocks(self, rows: int) -> int:
        """Number of blocks of rows that share their inputs in a matrix with ``rows`` rows."""
        return -(-rows // self.shared_rows)

    def groups(self, rows: int, columns: int) -> int:
        """Number of groups in which inputs are chosen; a group that a block shares counts once."""
        return self.blocks(rows) * columns // self.m


ONE_OF_TWO = Pattern(1, 2)
# Tightest first: a 1:2 matrix is a 2:4 and a 4:8 matrix as well, and 1:2 says the most about it.
KNOWN_PATTERNS = (Pattern(1, 3), ONE_OF_TWO, Pattern(2, 4), Pattern(4, 8))


def grouped(matrix: Array, pattern: Pattern) -> Array:
    """View ``[rows, columns]`` as ``[rows, columns / m, m]``; PatternError if m does not divide."""
    if matrix.ndim != 2:
        raise PatternError(f"{pattern} applies to matrices, not to shape {list(matrix.shape)}.")
    rows, columns = matrix.shape
    if columns == 0 or columns % pattern.m:
        raise PatternError(
            f"an input dimension of {columns} cannot be cut into groups of {pattern.m} for "
            f"{pattern}: choose a pattern whose M divides it."
        )
    return matrix.reshape(rows, columns // pattern.m, pattern.m)


def sum_over_blocks(scores: Matrix, pattern: Pattern) -> Matrix:
    """``[rows, columns]`` summed over the rows that share their inputs: ``[blocks, columns]``."""
    if pattern.shared_rows == 1:
        return scores
    sums: Matrix = np.add.reduceat(scores, range(0, len(scores), pattern.shared_rows), axis=0)
    return sums


def spread_over_rows(blocks: Array, pattern: Pattern, rows: int) -> Array:
    """Repeat the entry of each block of rows, ``[blocks, ...]``, for its rows: ``[rows, ...]``."""
    if pattern.shared_rows == 1:
        return blocks
    return blocks[np.arange(rows) // pattern.shared_rows]


def mask_from_scores(scores: Matrix, pattern: Pattern) -> BoolMatrix:
    """Keep exactly the n highest-scored entries of each group; ties keep the leftmost.

    ``scores`` is ``[rows, columns]`` of any float type without NaN; the mask has its shape. If rows
    share their inputs, their scores are added up.
    """
    grouped(scores, pattern)  # checks the shape before the sums
    sums = sum_over_blocks(scores, pattern)
    groups = grouped(sums, pattern)
    if pattern.m == 2:
        odd = groups[..., 1] > groups[..., 0]
        mask = np.stack((~odd, odd), axis=-1)
    else:
        order = np.argsort(-groups, axis=-1, kind="stable")[..., : pattern.n]
        mask = np.zeros(groups.shape, dtype=bool)
        np.put_along_axis(mask, order, True, axis=-1)
    return spread_over_rows(mask.reshape(sums.shape), pattern, len(scores))


def mask_from_zeros(weight: Matrix, pattern: Pattern) -> BoolMatrix:
    """The mask of an already pruned matrix: its non-zeros, filled up from the left to n per group.

    A group may have more zeros than the pattern requires; its mask still keeps exactly n entries,
    so that every mask is complete. Raises PatternError if the pattern is broken.
    """
    broken = count_broken_groups(weight, pattern)
    if broken:
        raise PatternError(f"{broken} groups have more non-zeros than {pattern} allows.")
    return mask_from_scores((weight != 0).astype(np.float32), pattern)


def count_kept(matrix: Array, pattern: Pattern) -> npt.NDArray[np.uint8]:
    """How many non-zeros (or True entries) each group has: uint8 ``[blocks, columns / m]``.

    Without sharing, a block is a single row; with it, an input counts if any row of the block
    keeps it.
    """
    marks = grouped(matrix != 0, pattern)
    if pattern.shared_rows > 1:
        starts = range(0, len(marks), pattern.shared_rows)
        marks = np.logical_or.reduceat(marks, starts, axis=0)
    marks = marks.view(np.uint8)
    # m strided additions: numpy's own reductions over so short an axis are many times slower.
    counts: npt.NDArray[np.uint8] = marks[..., 0].copy()
    for column in range(1, pattern.m):
        counts += marks[..., column]
    return counts


def count_broken_groups(weight: Array, pattern: Pattern) -> int:
    """How many groups have more than n non-zeros."""
    return int(np.count_nonzero(count_kept(weight, pattern) > pattern.n))


def is_whole(mask: BoolMatrix, pattern: Pattern) -> bool:
    """Whether every group of a mask keeps exactly n; also False if m does not divide the inputs."""
    if mask.ndim != 2 or mask.shape[1] == 0 or mask.shape[1] % pattern.m:
        return False
    first = mask[:: pattern.shared_rows]  # of each block
    if pattern.shared_rows > 1:
        if not np.array_equal(mask, spread_over_rows(first, pattern, len(mask))):
            return False
        pattern = ONE_OF_TWO
    return bool(np.all(count_kept(first, pattern) == pattern.n))


def detect(weight: Array) -> Pattern | None:
    """The tightest of KNOWN_PATTERNS that holds in this matrix; None for a dense one.

    Sharing between rows is not detected: the folder records it. An all-zero matrix counts as dense,
    since no pruning made it.
    """
    if weight.ndim != 2 or weight.size == 0:
        return None
    # Most matrices are dense, and one count of their zeros shows it.
    share = np.count_nonzero(weight != 0) / weight.size
    if share == 0:
        return None
    for pattern in KNOWN_PATTERNS:
        fits = weight.shape[1] % pattern.m == 0 and share <= pattern.density
        if fits and count_broken_groups(weight, pattern) == 0:
            return pattern
    return None


def pack_mask(mask: BoolMatrix) -> npt.NDArray[np.uint8]:
    """One bit per weight, each row padded to whole bytes: uint8 ``[rows, ceil(columns / 8)]``."""
    return np.packbits(mask, axis=1, bitorder="little")


def unpack_mask(bits: npt.NDArray[np.uint8], columns: int) -> BoolMatrix:
    """Inverse of `pack_mask`."""
    if bits.ndim != 2 or bits.dtype != np.uint8 or bits.shape[1] != -(-columns // 8):
        raise PatternError(
            f"mask bits of shape {list(bits.shape)} do not describe rows of {columns} weights."
        )
    return np.unpackbits(bits, axis=1, count=columns, bitorder="little").astype(bool)
