"""Finding pruned matrices among the constants of an exported file: are their zeros still there?

Exporters rename weights, transpose them and fold constants, so a matrix is known by its values
alone: a constant that equals it, as it is or transposed, is that matrix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from sparsebert.checkpoint.dtypes import Array

_STORED_AS = (np.float32, np.float16)


def count_kept_zeros(matrices: Mapping[str, Array], constants: Iterable[Array]) -> dict[str, int]:
    """How many zeros each of ``matrices`` has in a file with these ``constants``, by its name.

    float32 matrices are also found as float16. A matrix that is not there, or not with every zero
    and every other weight in place, is left out.
    """
    zeros = {
        _digest(constant): int(constant.size - np.count_nonzero(constant))
        for constant in constants
        if constant.ndim == 2 and constant.dtype in _STORED_AS
    }
    found = {}
    for name, matrix in matrices.items():
        for dtype in _STORED_AS:
            stored = matrix.astype(dtype, copy=False)
            count = zeros.get(_digest(stored), zeros.get(_digest(stored.T)))
            if count is not None:
                found[name] = count
                break
    return found


def _digest(matrix: Array) -> tuple[tuple[int, ...], str, bytes]:
    # + 0 turns -0.0, which is a zero like any other, into +0.0.
    values = np.ascontiguousarray(matrix + matrix.dtype.type(0))
    return values.shape, values.dtype.name, hashlib.blake2b(values.data).digest()
