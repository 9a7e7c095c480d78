"""A dense or sparse folder as the engine wants it, without a packed file in between."""

from __future__ import annotations

from sparsebert.checkpoint.architecture import PARTS
from sparsebert.checkpoint.folder import Checkpoint
from sparsebert.checkpoint.masks import StoredMasks, layer_mask
from sparsebert.packing.dtypes import Roles, Source, get_value_type
from sparsebert.packing.forms import Weight


def engine_weights(checkpoint: Checkpoint, dtype: str = "fp32") -> dict[str, Weight]:
    """What the engine computes with, by canonical name, as `open_packed` would give it.

    Sparse layers are compressed in memory; dense float32 tensors stay views of the mapped file.
    With "fp32" everything is float32, with "fp16" matrices are float16, with "int8" linear layers
    and tables are quantised. Raises PatternError if a recorded pattern is broken and
    CheckpointError for NaN or infinity.
    """
    values = get_value_type(dtype)
    stored_masks = StoredMasks(checkpoint)
    layers = {layer.name: layer for layer in checkpoint.linear_layers(PARTS)}
    roles = Roles(checkpoint.config)
    weights: dict[str, Weight] = {}
    for name in checkpoint.used:
        weight = checkpoint.finite_weight(name)
        stored = checkpoint.stored_name[name]
        found = None
        if name in layers:
            found = layer_mask(checkpoint, layers[name], stored_masks, weight)
        pattern, mask = found or (None, None)
        role = roles.of(name, weight.ndim)
        form = values.form(Source("F32", weight.shape, role, pattern))
        weights[name] = form.make(weight, "F32", mask, stored)
    return weights
