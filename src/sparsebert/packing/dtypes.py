"""How a packed file stores the numbers of the model's own tensors: one entry a ``--dtype``.

An entry says which type a tensor gets, and makes it. To add one, write its class and put it in the
table; files name their entry, so that old files stay readable.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from sparsebert.checkpoint.dtypes import Array, widen
from sparsebert.errors import CheckpointError


class ValueType(Protocol):
    """What packing needs to know about a way to store values."""

    exact: bool
    """Whether `unpack` gives back the source's tensors byte for byte."""

    def stored_as(self, dtype: str, dimensions: int) -> str:
        """The safetensors type for a tensor that the source stores as ``dtype``."""

    def encode(self, values: Array, dtype: str, dimensions: int, name: str) -> Array:
        """The tensor's values, stored as ``dtype`` in the source, in that type.

        ``dimensions`` are the tensor's own, also where ``values`` are the kept values of a matrix.
        CheckpointError names the tensor if its values cannot be stored so.
        """


class Float32Values:
    """Every tensor as the source stores it, so that unpacking is exact.

    For a source in float32 that is float32. A source stored in float16 or bfloat16 keeps its type:
    widening would double the file and add nothing.
    """

    exact = True

    def stored_as(self, dtype: str, dimensions: int) -> str:
        return dtype

    def encode(self, values: Array, dtype: str, dimensions: int, name: str) -> Array:
        return values


class Float16Values:
    """Matrices (kept values, embeddings, dense layers) as float16; biases and LayerNorm as float32.

    The vectors are a thousandth of the file and enter sums, so they keep their precision.
    """

    exact = False

    def stored_as(self, dtype: str, dimensions: int) -> str:
        return "F16" if dimensions == 2 else "F32"

    def encode(self, values: Array, dtype: str, dimensions: int, name: str) -> Array:
        if dimensions != 2:
            return widen(values, dtype)
        if dtype == "F16":
            return values
        wide = widen(values, dtype)
        with np.errstate(over="ignore"):
            half = wide.astype(np.float16)
        if not np.isfinite(half).all():
            largest = float(np.abs(wide).max())
            raise CheckpointError(
                f"tensor '{name}' holds {largest:.6g}, beyond float16's largest 65504: pack it as "
                "fp32."
            )
        return half


VALUE_TYPES: dict[str, ValueType] = {"fp32": Float32Values(), "fp16": Float16Values()}


def get_value_type(dtype: str) -> ValueType:
    """The entry of a ``--dtype``; CheckpointError lists them if there is none."""
    if dtype not in VALUE_TYPES:
        raise CheckpointError(
            f"'{dtype}' is not a type to pack values in; there are {', '.join(VALUE_TYPES)}."
        )
    return VALUE_TYPES[dtype]
