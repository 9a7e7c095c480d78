"""Attention windows and rotary bases of each layer of a model with rotary embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sparsebert.checkpoint.json_files import MOST, ConfigValues
from sparsebert.errors import CheckpointError, UnsupportedArchitectureError

GLOBAL, LOCAL = "full_attention", "sliding_attention"
_THETAS = {GLOBAL: ("global_rope_theta", 160_000.0), LOCAL: ("local_rope_theta", 10_000.0)}


@dataclass(frozen=True)
class LayerAttention:
    """One layer's attention.

    ``window`` is the largest distance at which a token sees another, None where it sees all.
    ``theta`` is the base of rotary positions: dimensions i and i + d/2 of a head of d turn by
    theta^(-2i/d) radians a token. None where nothing turns.
    """

    window: int | None = None
    theta: float | None = None


def rotary_layers(values: ConfigValues, layers: int) -> tuple[LayerAttention, ...]:
    """What ModernBERT's config.json says of each layer, in the form of today or of 2024.

    Raises CheckpointError, or UnsupportedArchitectureError for rotary positions that are scaled.
    """
    raw, where = values.raw, values.where
    _refuse_scaling(raw.get("rope_scaling"), values)
    thetas = {kind: _theta(kind, values) for kind in _THETAS}
    # transformers halves the window's width: a token sees so many on either side, both included.
    window = values.count("sliding_window", values.count("local_attention", 128) // 2)
    kinds = raw.get("layer_types")
    if kinds is None:
        every = values.count("global_attn_every_n_layers", 3)
        kinds = [LOCAL if layer % every else GLOBAL for layer in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers or not all(k in _THETAS for k in kinds):
        raise CheckpointError(
            f"{where}: layer_types must be a list of {layers} times '{GLOBAL}' or '{LOCAL}'."
        )
    return tuple(LayerAttention(window if kind == LOCAL else None, thetas[kind]) for kind in kinds)


def _theta(kind: str, values: ConfigValues) -> float:
    key, default = _THETAS[kind]
    parameters: Any = values.raw.get("rope_parameters") or {}
    parameters = parameters.get(kind) or {} if isinstance(parameters, dict) else parameters
    _refuse_scaling(parameters, values)
    theta = parameters.get("rope_theta", values.raw.get(key, default))
    if type(theta) not in (int, float) or not math.isfinite(theta) or not 1 < theta < MOST * MOST:
        raise CheckpointError(f"{values.where}: {key} must be a number above 1, not {theta!r}.")
    return float(theta)


def _refuse_scaling(parameters: Any, values: ConfigValues) -> None:
    if parameters is None:
        return
    if not isinstance(parameters, dict):
        raise CheckpointError(f"{values.where}: the rotary parameters must be JSON objects.")
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind != "default":
        raise UnsupportedArchitectureError(
            f"{values.where}: rotary positions of type {kind!r} are not supported, only 'default'."
        )
