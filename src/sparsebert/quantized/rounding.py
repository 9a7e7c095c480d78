"""Quantization to int8 by rows: q = rint(weight / scale of the row).

A table's scale is max |weight| / 127. The weights of a linear layer are kept a little smaller, so
that CPUs without VNNI may add the products of two neighbours, u8 by s8, in 16 bits (vpmaddubsw):
where two neighbours have one sign, they add up to at most 128, and 255 x 128 < 2^15. Neighbours are
one of the first two and one of the last two of every four adjacent inputs, in 1:2 and dense layouts
alike. The scale is the largest such sum / 127, and rounding adds at most 1/2 to each of the two.
That costs less than weights of 7 bits, the reduced range that is used elsewhere for this purpose.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparsebert.errors import PatternError
from sparsebert.patterns import BoolMatrix, Pattern
from sparsebert.quantized.layouts import Int8, Quantized, QuantizedTable

Float32 = npt.NDArray[np.float32]

_LIMIT = 127
_CHUNK = 1024  # rows quantized at a time, so that the temporaries stay small


def quantize_rows(weight: Float32, small_pairs: bool = False) -> tuple[Int8, Float32]:
    """Finite float32 ``[rows, columns]`` as int8 of that shape, and float32 scales ``[rows]``.

    ``small_pairs`` leaves room for sums of neighbours, as in a linear layer.
    """
    values = np.empty(weight.shape, np.int8)
    scales = np.empty(len(weight), np.float32)
    for start in range(0, len(weight), _CHUNK):
        rows = slice(start, start + _CHUNK)
        part = weight[rows]
        scales[rows] = (_scales_of_pairs if small_pairs else _scales)(part)
        # If the scale underflows to 0, its row is 0; if it nearly does, values may exceed 127.
        divisor = np.where(scales[rows] > 0, scales[rows], np.float32(np.inf))
        quotient = np.rint(part / divisor[:, None])
        values[rows] = np.clip(quotient, -_LIMIT, _LIMIT, out=quotient)
    return values, scales


def _scales(weight: Float32) -> Float32:
    largest = np.abs(np.maximum(weight.max(1), -weight.min(1)))  # a row of zeros may give -0.0
    scales: Float32 = largest / np.float32(_LIMIT)
    return scales


def _scales_of_pairs(weight: Float32) -> Float32:
    padded = np.pad(weight, ((0, 0), (0, -weight.shape[1] % 4)))
    padded /= np.float32(_LIMIT)  # so that sums are finite
    # In strides: a reduction over axes of two takes ten times as long.
    high = np.maximum(np.maximum(padded[:, ::2], padded[:, 1::2]), 0)
    low = np.minimum(np.minimum(padded[:, ::2], padded[:, 1::2]), 0)
    most, least = high[:, ::2] + high[:, 1::2], low[:, ::2] + low[:, 1::2]
    scales: Float32 = np.maximum(most.max(1), -least.min(1))
    return np.abs(scales)  # a row of zeros may give -0.0


def quantize(
    weight: Float32,
    layout: type[Quantized],
    pattern: Pattern | None = None,
    mask: BoolMatrix | None = None,
) -> Quantized:
    """A float32 matrix in ``layout``; ``mask`` is the full mask of a pruned matrix.

    Raises PatternError if a weight outside the mask is not zero.
    """
    if pattern is not None and (mask is None or bool(np.any(weight[~mask]))):
        raise PatternError("a weight outside the mask is not zero.")
    layout.shapes(len(weight), weight.shape[1], pattern)
    values, scales = quantize_rows(weight, small_pairs=layout is not QuantizedTable)
    parts = layout.arrange(values, pattern, mask)
    return layout(weight.shape[1], scales=scales, pattern=pattern, **parts)


def dequantize(matrix: Quantized) -> Float32:
    """The float32 ``[rows, columns]`` that the int8 values stand for; pruned weights are +0.0."""
    dense = matrix.row_major().astype(np.float32)
    dense *= matrix.scales[:, None]
    return dense


def check_quantized(matrix: Quantized) -> None:
    """Raise PatternError for types, shapes, scales, bits or padding that `quantize` does not write.

    Of the values, only the padding is read: any other int8 makes a valid matrix.
    """
    rows, columns = matrix.rows, matrix.columns
    if rows == 0 or columns <= 0:
        raise PatternError(f"a [{rows}, {columns}] matrix has no weights.")
    parts = matrix.parts
    for part, (dtype, shape) in matrix.shapes(rows, columns, matrix.pattern).items():
        found = parts.get(part)
        if found is None:
            raise PatternError(f"its {part} are missing.")
        if found.dtype != dtype or found.shape != shape:
            raise PatternError(
                f"its {part} are {found.dtype} {list(found.shape)}, not {np.dtype(dtype)} "
                f"{list(shape)}."
            )
    # NaN spreads through min.
    if not (matrix.scales.min() >= 0 and matrix.scales.max() < np.inf):
        raise PatternError("its scales are not all finite and non-negative.")
    matrix.check_filling()
