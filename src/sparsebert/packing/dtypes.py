"""The ``--dtype`` of a packed file: how each of the model's tensors is stored.

An entry says which form each tensor gets. To add one, write its class and put it in the table. A
file names its entry, so that old files stay readable.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from sparsebert.checkpoint.architecture import (
    RELATIVE_BIAS,
    RELATIVE_EMBEDDINGS,
    last_layer,
    linear_names,
)
from sparsebert.checkpoint.config import EncoderConfig
from sparsebert.errors import CheckpointError
from sparsebert.packing.forms import CompressedForm, Form, PlainForm, QuantizedForm
from sparsebert.patterns import Pattern
from sparsebert.quantized import QuantizedTable, linear_layout


class Role(Enum):
    """The role of a tensor in the model."""

    LINEAR = "linear layer"
    TABLE = "table"  # embeddings, and a masked-LM decoder that is not tied to them
    LAST = "last layer of a head"  # a few rows, whose sums are the answer itself
    VECTOR = "vector"  # also small matrices: relative-position biases and embeddings


class Roles:
    """The roles of a model's own tensors, by canonical name."""

    def __init__(self, config: EncoderConfig) -> None:
        self._layers = linear_names(config)
        self._last = last_layer(config)

    def of(self, name: str, dimensions: int) -> Role:
        """The role of a tensor with that many dimensions."""
        if dimensions != 2 or name in (RELATIVE_BIAS, RELATIVE_EMBEDDINGS):
            return Role.VECTOR
        if name == self._last:
            return Role.LAST
        return Role.LINEAR if name in self._layers else Role.TABLE


@dataclass(frozen=True)
class Source:
    """A tensor to be packed: its stored type, its shape, and the pattern that its zeros fit."""

    dtype: str
    shape: tuple[int, ...]
    role: Role
    pattern: Pattern | None


class ValueType(Protocol):
    """How a ``--dtype`` stores values."""

    exact: bool
    """Whether `unpack` restores the source's tensors byte for byte."""

    def form(self, source: Source) -> Form:
        """The form that a tensor gets."""


class Float32Values:
    """Every tensor in the type that the source stores, so that unpacking is exact.

    A source in float16 or bfloat16 keeps its type: widening would double the file and add nothing.
    """

    exact = True

    def form(self, source: Source) -> Form:
        return _float_form(source, source.dtype)


class Float16Values:
    """Matrices (kept values, embeddings, dense layers) as float16; biases and LayerNorm as float32.

    The vectors are a thousandth of the file and enter sums, so they keep their precision.
    """

    exact = False

    def form(self, source: Source) -> Form:
        return _float_form(source, "F32" if source.role is Role.VECTOR else "F16")


class Int8Values:
    """Linear layers and tables as int8 with a scale for each row, the rest as float32."""

    exact = False

    def form(self, source: Source) -> Form:
        if source.role is Role.LINEAR:
            return QuantizedForm(source.shape, linear_layout(source.pattern), source.pattern)
        if source.role is Role.TABLE:
            return QuantizedForm(source.shape, QuantizedTable)
        return PlainForm(source.shape, "F32")


def _float_form(source: Source, dtype: str) -> Form:
    if source.pattern is None:
        return PlainForm(source.shape, dtype)
    return CompressedForm(source.shape, dtype, source.pattern)


VALUE_TYPES: dict[str, ValueType] = {
    "fp32": Float32Values(),
    "fp16": Float16Values(),
    "int8": Int8Values(),
}


def get_value_type(dtype: str) -> ValueType:
    """The entry of a ``--dtype``; CheckpointError lists them if there is none."""
    if dtype not in VALUE_TYPES:
        raise CheckpointError(
            f"values cannot be packed as '{dtype}': choose from {', '.join(VALUE_TYPES)}."
        )
    return VALUE_TYPES[dtype]
