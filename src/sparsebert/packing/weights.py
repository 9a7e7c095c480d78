"""Weights in the engine's format: from a dense or sparse folder, their description and size."""

from __future__ import annotations

from collections.abc import Mapping

from sparsebert.checkpoint.architecture import PARTS
from sparsebert.checkpoint.folder import Checkpoint
from sparsebert.checkpoint.masks import StoredMasks
from sparsebert.packing.dtypes import Roles, Source, get_value_type
from sparsebert.packing.forms import Weight, parts_of


def engine_weights(checkpoint: Checkpoint, dtype: str = "fp32") -> dict[str, Weight]:
    """What the engine computes with, by canonical name, as `open_packed` would return it.

    Sparse layers are compressed in memory; dense float32 tensors stay views of the mapped file.
    With "fp32" everything is float32, with "fp16" matrices are float16, with "int8" linear layers
    and tables are quantized. Raises PatternError if a recorded pattern is broken and
    CheckpointError for NaN or infinity.
    """
    values = get_value_type(dtype)
    masks = StoredMasks(checkpoint)
    layers = {layer.name: layer for layer in checkpoint.linear_layers(PARTS)}
    roles = Roles(checkpoint.config)
    weights: dict[str, Weight] = {}
    for name in checkpoint.used:
        weight = checkpoint.finite_weight(name)
        stored = checkpoint.stored_name[name]
        found = masks.find(layers[name], weight) if name in layers else None
        pattern, mask = found or (None, None)
        role = roles.of(name, weight.ndim)
        form = values.form(Source("F32", weight.shape, role, pattern))
        weights[name] = form.make(weight, "F32", mask, stored)
    return weights


Weights = Mapping[str, Weight]
_DTYPE_NAMES = {"float32": "fp32", "float16": "fp16"}


def bytes_held(weights: Weights) -> int:
    """Bytes of all weights; memory that two names share (a tied decoder) counts once."""
    sizes = {
        (array.__array_interface__["data"][0], array.nbytes): array.nbytes
        for weight in weights.values()
        for array in parts_of(weight).values()
    }
    return sum(sizes.values())


def describe_storage(weights: Weights) -> str:
    """How the encoder's matrices are stored, for example ``1:2 fp32``."""
    patterns, dtypes = [], set()
    for name, weight in weights.items():
        parts = parts_of(weight)
        values = parts.get("values", parts.get(""))
        if name.startswith("encoder.") and values is not None and values.ndim > 1:
            patterns.append(getattr(weight, "pattern", None))  # a plain array has none
            dtypes.add(str(values.dtype))
    pruned = [str(pattern) for pattern in patterns if pattern is not None]
    partly = 0 < len(pruned) < len(patterns)
    share = f" ({len(pruned)} of {len(patterns)} layers)" if partly else ""
    kinds = "+".join(sorted(set(pruned))) or "dense"
    names = "+".join(_DTYPE_NAMES.get(dtype, dtype) for dtype in sorted(dtypes))
    return f"{kinds}{share} {names}"
