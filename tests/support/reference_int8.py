"""The engine's int8 arithmetic in plain numpy: what its int8 kernels are held against.

BERT as `reference_bert` has it, with the linear layers, attention products and tables in int8.
Nothing is shared with the package: weights are read out of their packed layouts place by place, by
the formulas of `sparsebert.quantized`'s docstrings. Sums of int8 products are exact; what is around
them is float64, so results differ from the engine's where float32 rounds an activation to the next
whole number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from reference_bert import Array, ReferenceBert

Integers = npt.NDArray[np.int64]
_SMALLEST = 1e-12  # of a value's scale in attention, which is divided by


@dataclass(frozen=True)
class Rows:
    """Quantised rows ``[..., features]``: value = scale * (values - zero), one scale a row."""

    values: Integers
    scales: Array
    zeros: Integers

    @property
    def floats(self) -> Array:
        """The numbers that the integers stand for."""
        return self.scales[..., None] * (self.values - self.zeros[..., None])


def quantize_activations(x: npt.NDArray) -> Rows:
    """Each row as uint8 from its own minimum and maximum, both taken to include 0."""
    x = x.astype(np.float32)
    low = np.minimum(x.min(-1), np.float32(0))
    scales = (np.maximum(x.max(-1), np.float32(0)) - low) / np.float32(255)
    divisor = np.where(scales > 0, scales, np.float32(1))
    zeros = np.rint(-low / divisor)
    values = np.clip(np.rint(x / divisor[..., None]) + zeros[..., None], 0, 255)
    return Rows(values.astype(np.int64), scales.astype(np.float64), zeros.astype(np.int64))


def quantize_heads(x: npt.NDArray) -> Rows:
    """Each row as int8, symmetric about 0."""
    x = x.astype(np.float32)
    scales = np.abs(x).max(-1) / np.float32(127)
    divisor = np.where(scales > 0, scales, np.float32(1))
    values = np.rint(x / divisor[..., None]).astype(np.int64)
    return Rows(values, scales.astype(np.float64), np.zeros(scales.shape, np.int64))


def weight_integers(weight: Any) -> Integers:
    """The int8 matrix ``[rows, columns]`` of any packed layout, zeros where nothing is kept."""
    rows, columns, values = len(weight.scales), weight.columns, weight.values.astype(np.int64)
    row, column = np.indices((rows, columns))
    if weight.layout == "table":
        return values
    if weight.layout == "dense":
        group, place = column // 8, column % 8
        return values[row // 16, 2 * group + place % 2, row % 16, place // 2]
    if weight.layout == "pairs":
        group, place = column // 8, column % 8 // 2
        word = weight.bits[row // 16, group]
        odd = word >> (4 * (row % 16) + place).astype(np.uint64) & np.uint64(1)
        return np.where(odd == column % 2, values[row // 16, group, row % 16, place], 0)
    if weight.layout == "shared-pairs":
        pair = column // 2
        odd = weight.bits[row // weight.pattern.shared_rows, pair // 8] >> pair % 8 & 1
        return np.where(odd == column % 2, values[row // 16, pair // 4, row % 16, pair % 4], 0)
    width = 64 // weight.pattern.m * weight.pattern.m  # columns of a panel
    panel, place = column // width, (column % width).astype(np.uint64)
    kept = weight.bits[panel, row] >> place & np.uint64(1) == 1
    before = np.cumsum(kept, axis=1) - kept  # kept weights left of this one, from the row's start
    return np.where(kept, values[panel, row, before % values.shape[2]], 0)


@dataclass(frozen=True)
class ReferenceInt8(ReferenceBert):
    """``weights`` by canonical name: the int8 layouts of `sparsebert.quantized`, and float arrays.

    ``steps`` gathers the quantised rows of the last call: under a layer's name what went into it,
    under ``NAME.attention.self.{query,key,value}.rows`` the heads' rows ``[heads, tokens, size]``,
    and under ``NAME.attention.probabilities`` uint8 ``[heads, tokens, tokens]`` with their scales.
    """

    steps: dict[str, Any] = field(default_factory=dict)

    def _product(self, x: Array, name: str) -> Array:
        weight = self.weights[name]
        if isinstance(weight, np.ndarray):
            return super()._product(x, name)
        layer = name.removesuffix(".weight")
        self.steps[layer] = rows = quantize_activations(x)
        integers = weight_integers(weight)
        sums = rows.values @ integers.T - rows.zeros[:, None] * integers.sum(1)
        return rows.scales[:, None] * weight.scales.astype(np.float64) * sums

    def _attend(self, x: Array, layer: int, name: str) -> Array:
        tokens, hidden = x.shape
        rows = {}
        for kind, projected in self._projections(x, layer, name).items():
            rows[kind] = quantize_heads(projected)
            self.steps[f"{name}.attention.self.{kind}.rows"] = rows[kind]
        query, key, value = rows["query"], rows["key"], rows["value"]
        scores = query.scales[:, :, None] * key.scales[:, None, :]
        scores = scores * (query.values @ key.values.transpose(0, 2, 1))
        scores = scores + self._distance_scores(name, query.floats, key.floats)
        scores = scores / self._divisor(hidden)
        scores = scores + self._score_bias(layer, tokens)
        # Each value's own scale goes into its probability, so that the second product needs none.
        scale = np.maximum(value.scales, _SMALLEST)[:, None, :]
        scores = scores + np.log(scale)
        scaled = np.exp(scores - scores.max(-1, keepdims=True))
        integers = np.rint(255 * scaled).astype(np.int64)
        sums = 255 * (scaled / scale).sum(-1)
        self.steps[f"{name}.attention.probabilities"] = Rows(
            integers, 1 / sums, np.zeros(sums.shape, np.int64)
        )
        context = (integers @ value.values) / sums[:, :, None]
        return context.transpose(1, 0, 2).reshape(tokens, hidden)

    def _rounded(self, heads: Array) -> Array:
        return quantize_heads(heads).floats

    def _get(self, name: str) -> Array:
        weight = self.weights[name]
        if isinstance(weight, np.ndarray):
            return super()._get(name)
        return weight_integers(weight) * weight.scales.astype(np.float64)[:, None]
