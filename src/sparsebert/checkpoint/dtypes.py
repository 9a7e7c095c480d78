"""The tensor types of safetensors files, as numpy sees them.

numpy has no bfloat16: such tensors are kept as raw 16-bit words (uint16) and widened to float32
where their values are needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparsebert.errors import CheckpointError

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

# By safetensors' names. Types that numpy lacks are kept as raw words of the same width.
_NUMPY: dict[str, str] = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "C64": "<c8",
    "BF16": "<u2",
    "F8_E4M3": "u1",
    "F8_E5M2": "u1",
    "F8_E8M0": "u1",
    "F8_E4M3FNUZ": "u1",
    "F8_E5M2FNUZ": "u1",
}
_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}  # several values share a byte: kept as flat bytes

WEIGHT_TYPES = ("F32", "F16", "BF16")
"""Types that a weight of the model itself may have; extra tensors may have any."""


def numpy_type(dtype: str) -> np.dtype[Any] | None:
    """The numpy type a safetensors type is viewed as; None for types narrower than a byte."""
    if dtype in _BITS:
        return None
    if dtype not in _NUMPY:
        raise CheckpointError(f"the tensor type {dtype} is unknown.")
    return np.dtype(_NUMPY[dtype])


def byte_count(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes that a tensor takes in a safetensors file."""
    count = 1
    for size in shape:
        count *= size
    known = numpy_type(dtype)
    if known is not None:
        return count * int(known.itemsize)
    return count * _BITS[dtype] // 8


def widen(array: Array, dtype: str) -> Float32:
    """Weights of any of WEIGHT_TYPES as float32: the array itself if it is float32 already."""
    if dtype == "BF16":
        array = (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    wide: Float32 = array.astype(np.float32, copy=False)
    return wide


def narrow(values: Float32, dtype: str) -> Array:
    """float32 rounded to one of WEIGHT_TYPES, as it is stored: the inverse of `widen`."""
    if dtype == "BF16":
        words = np.ascontiguousarray(values).view(np.uint32)
        # Round to nearest, ties to even: the carry out of the lower half decides.
        half = np.uint32(0x7FFF) + (words >> np.uint32(16) & np.uint32(1))
        rounded: Array = ((words + half) >> np.uint32(16)).astype(np.uint16)
        return rounded
    return values.astype(numpy_type(dtype), copy=False)


def to_float16(name: str, values: Float32, advice: str) -> Array:
    """float32 rounded to float16.

    Raises CheckpointError, naming the tensor and ending in ``advice``, for values that float16
    cannot hold.
    """
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise CheckpointError(
            f"tensor '{name}' contains {float(np.abs(values).max()):.6g}, beyond float16's maximum "
            f"of 65504: {advice}."
        )
    return half


def check_finite(name: str, values: npt.NDArray[np.floating[Any]], where: object) -> None:
    """Raise CheckpointError, naming the tensor, if it contains NaN or infinity."""
    if values.size == 0:
        return
    # The extremes reveal both: NaN propagates through min and max, and infinity is an extreme.
    low, high = float(values.min()), float(values.max())
    if np.isfinite(low) and np.isfinite(high):
        return
    count = int(values.size - np.count_nonzero(np.isfinite(values)))
    raise CheckpointError(
        f"{where}: tensor '{name}' holds {count} values that are NaN or infinite; the weights are "
        "damaged or their training diverged."
    )
