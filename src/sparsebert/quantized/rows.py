"""Row-wise rounding to int8: scale = max |weight| / 127 of its row, q = rint(weight / scale)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int8 = npt.NDArray[np.int8]
Float32 = npt.NDArray[np.float32]

_LIMIT = 127
_CHUNK = 1024  # rows quantised at a time, so that the temporaries stay small


def quantize_rows(weight: Float32) -> tuple[Int8, Float32]:
    """Finite float32 ``[rows, columns]`` as int8 of that shape and float32 scales ``[rows]``."""
    values = np.empty(weight.shape, np.int8)
    scales = np.empty(len(weight), np.float32)
    for start in range(0, len(weight), _CHUNK):
        rows = slice(start, start + _CHUNK)
        part = weight[rows]
        largest = np.abs(np.maximum(part.max(1), -part.min(1)))  # a row of zeros may give -0.0
        scales[rows] = largest / np.float32(_LIMIT)
        # A scale that underflows to 0 makes its row 0; one that is almost so may round beyond 127.
        divisor = np.where(scales[rows] > 0, scales[rows], np.float32(np.inf))
        quotient = np.rint(part / divisor[:, None])
        values[rows] = np.clip(quotient, -_LIMIT, _LIMIT, out=quotient)
    return values, scales
