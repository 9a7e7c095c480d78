"""Write a safetensors file tensor by tensor, so that only one is in memory at a time.

The safetensors library needs all tensors of a file at once. Here the header, which is computed from
the tensors' shapes, is written first, and each tensor follows as it becomes ready. The file is
complete under a temporary name before it gets its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np

from sparsebert.checkpoint.atomic import replaced_file
from sparsebert.checkpoint.dtypes import Array, byte_count, numpy_type
from sparsebert.checkpoint.tensors import TensorSpec

_ALIGNMENT = (
    64  # bytes: a cache line and the widest vector register, so tensors can be used in place
)


def write_tensors(
    path: Path,
    specs: Sequence[TensorSpec],
    arrays: Iterable[Array],
    metadata: Mapping[str, str],
) -> None:
    """Write ``arrays``, which come one at a time in the order of ``specs``, to ``path``.

    bfloat16 and other types that numpy lacks are passed as raw words of their width. Every tensor
    starts at a multiple of 64 bytes or, where the sizes in the file do not allow that, of its own
    item size. Raises OSError if the disk is full, leaving nothing behind, and ValueError, for a bug
    of the caller, if an array does not fit its spec.
    """
    starts, size = _layout(specs)
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    for spec in specs:
        begin = starts[spec.name]
        end = begin + byte_count(spec.dtype, spec.shape)
        header[spec.name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)  # the format allows trailing spaces
    origin = 8 + len(text)

    with replaced_file(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for spec, array in zip_longest(specs, arrays):
            if spec is None or array is None:
                raise ValueError("specs and arrays differ in number")
            _check(spec, array)
            file.seek(origin + starts[spec.name])
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        file.truncate(origin + size)


def _layout(specs: Sequence[TensorSpec]) -> tuple[dict[str, int], int]:
    """Where each tensor starts in the data, and the total size.

    The format allows no gaps. But sizes divisible by 64 keep whatever follows them aligned to 64,
    then sizes divisible by 32 keep it aligned to 32, and so on. Sorted in this order, every start
    is also a multiple of the tensor's own item size.
    """
    sizes = {spec.name: byte_count(spec.dtype, spec.shape) for spec in specs}
    if len(sizes) != len(specs):
        raise ValueError("two tensors of the same name")
    starts: dict[str, int] = {}
    position = 0
    for name in sorted(sizes, key=lambda name: _alignment(sizes[name]), reverse=True):
        starts[name] = position
        position += sizes[name]
    return starts, position


def _alignment(size: int) -> int:
    """The largest power of two that divides ``size``, at most 64."""
    capped = size | _ALIGNMENT
    return capped & -capped


def _check(spec: TensorSpec, array: Array) -> None:
    known = numpy_type(spec.dtype)
    if known is None:
        fits = array.dtype == np.uint8 and array.nbytes == byte_count(spec.dtype, spec.shape)
    else:
        fits = array.dtype == known and array.shape == spec.shape
    if not fits:
        raise ValueError(f"{spec} does not fit an array of {array.dtype} {array.shape}")
