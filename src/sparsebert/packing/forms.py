"""The storage forms of a weight, in a packed file and in the engine: plain, compressed, quantized.

A form is known before the weight is read: it says which tensors of the file the weight becomes (its
*parts*), makes them, and turns them back into what the engine computes with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sparsebert.checkpoint.dtypes import Array, to_float16, widen
from sparsebert.compressed import (
    Compressed,
    check_compressed,
    compress,
    compressed_mask,
    compressed_shapes,
    decompress,
)
from sparsebert.patterns import BoolMatrix, Pattern
from sparsebert.quantized import Quantized, check_quantized, dequantize, quantize

Weight = Array | Compressed | Quantized
Parts = dict[str, tuple[str, tuple[int, ...]]]

_TYPES: dict[type[np.generic], str] = {
    np.int8: "I8",
    np.uint8: "U8",
    np.uint32: "U32",
    np.uint64: "U64",
    np.float32: "F32",
}


class Form(Protocol):
    """How one tensor is stored."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the dense tensor."""

    @property
    def dtype(self) -> str:
        """The safetensors type of the tensor that `to_dense` returns."""

    @property
    def pattern(self) -> Pattern | None:
        """The pattern whose pruned weights are not stored; None if every weight is."""

    def parts(self) -> Parts:
        """Safetensors type and shape of each part; the only part of a plain tensor is ""."""

    def make(self, values: Array, dtype: str, mask: BoolMatrix | None, name: str) -> Weight:
        """Convert a tensor stored as ``dtype``; ``mask`` is complete and of the form's pattern.

        Raises CheckpointError, naming the tensor, if its values cannot be stored in this form.
        """

    def read(self, parts: Mapping[str, Array]) -> Weight:
        """The weight from parts of the right types and shapes; PatternError if damaged."""


@dataclass(frozen=True)
class PlainForm:
    """One tensor of ``dtype``."""

    shape: tuple[int, ...]
    dtype: str
    pattern: None = None

    def parts(self) -> Parts:
        return {"": (self.dtype, self.shape)}

    def make(self, values: Array, dtype: str, mask: BoolMatrix | None, name: str) -> Weight:
        return _convert(values, dtype, self.dtype, name)

    def read(self, parts: Mapping[str, Array]) -> Weight:
        return parts[""]


@dataclass(frozen=True)
class CompressedForm:
    """The kept values of a pruned matrix, as ``dtype``, and their bits: `compressed.Compressed`."""

    shape: tuple[int, ...]
    dtype: str
    pattern: Pattern

    def parts(self) -> Parts:
        rows, columns = self.shape
        values, bits, words = compressed_shapes(self.pattern, rows, columns)
        return {"values": (self.dtype, values), "bits": (_TYPES[words], bits)}

    def make(self, values: Array, dtype: str, mask: BoolMatrix | None, name: str) -> Weight:
        assert mask is not None
        # There are only zeros outside the mask, but -0.0 as a raw bfloat16 word is not 0.
        packed = compress(np.where(mask, values, values.dtype.type(0)), self.pattern, mask)
        kept = _convert(packed.values, dtype, self.dtype, name)
        return Compressed(self.pattern, packed.columns, kept, packed.bits)

    def read(self, parts: Mapping[str, Array]) -> Weight:
        packed = Compressed(self.pattern, self.shape[1], parts["values"], parts["bits"])
        check_compressed(packed)
        return packed


@dataclass(frozen=True)
class QuantizedForm:
    """int8 in a layout of `quantized`, with a scale for each row."""

    shape: tuple[int, ...]
    layout: type[Quantized]
    pattern: Pattern | None = None
    dtype: str = "F32"

    def parts(self) -> Parts:
        rows, columns = self.shape
        shapes = self.layout.shapes(rows, columns, self.pattern)
        return {part: (_TYPES[dtype], shape) for part, (dtype, shape) in shapes.items()}

    def make(self, values: Array, dtype: str, mask: BoolMatrix | None, name: str) -> Weight:
        return quantize(widen(values, dtype), self.layout, self.pattern, mask)

    def read(self, parts: Mapping[str, Array]) -> Weight:
        matrix = self.layout(self.shape[1], pattern=self.pattern, **parts)
        check_quantized(matrix)
        return matrix


def parts_of(weight: Weight) -> dict[str, Array]:
    """The arrays of a weight by the names of `Form.parts`."""
    return {"": weight} if isinstance(weight, np.ndarray) else weight.parts


def to_dense(weight: Weight) -> Array:
    """The dense tensor that a weight represents; an array is returned as it is."""
    if isinstance(weight, Compressed):
        return decompress(weight)
    return dequantize(weight) if isinstance(weight, Quantized) else weight


def kept_mask(weight: Weight) -> BoolMatrix | None:
    """The full mask of a weight whose form has a pattern, else None."""
    if isinstance(weight, Compressed):
        return compressed_mask(weight)
    return weight.mask() if isinstance(weight, Quantized) else None


def _convert(values: Array, dtype: str, wanted: str, name: str) -> Array:
    """Values stored as ``dtype`` in the type ``wanted``."""
    if dtype == wanted:
        return values
    wide = widen(values, dtype)
    return to_float16(name, wide, "pack the model as fp32") if wanted == "F16" else wide
