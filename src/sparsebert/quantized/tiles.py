"""Tiles: a matrix cut into blocks of 16 rows and some columns, filled up with zeros.

What one vector instruction of the engine multiplies lies side by side in a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparsebert.errors import PatternError

Array = npt.NDArray[Any]

TILE = 16  # rows


def cut_tiles(matrix: Array, width: int) -> Array:
    """``[rows, columns]``, filled up with zeros, as ``[tiles, groups, 16, width]``."""
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
        raise PatternError("the filling behind the last row or column is not zero.")
