"""Attention in each layer: its window and its rotary embedding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparsebert.checkpoint.families import Family
from sparsebert.checkpoint.json_files import MOST, ConfigValues
from sparsebert.errors import CheckpointError, UnsupportedArchitectureError

GLOBAL, LOCAL = "full_attention", "sliding_attention"
_THETAS = {GLOBAL: ("global_rope_theta", 160_000.0), LOCAL: ("local_rope_theta", 10_000.0)}


@dataclass(frozen=True)
class LayerAttention:
    """One layer's attention.

    ``window`` is the largest distance at which tokens attend to each other, None for no limit.
    ``theta`` is the base of the rotary embedding: dimensions i and i + d/2 of a head of size d are
    rotated by theta^(-2i/d) / ``factor`` radians per token. None if there is no rotation.
    """

    window: int | None = None
    theta: float | None = None
    factor: float = 1.0


def attention_layers(
    values: ConfigValues, layers: int, family: Family
) -> tuple[LayerAttention, ...]:
    """What config.json says about each layer, in its current form or an older one.

    Raises CheckpointError, or UnsupportedArchitectureError for another type of rotary embedding.
    """
    if family.layer_types:
        return _by_layer_types(values, layers)
    if family.positions != "rotary":
        return (LayerAttention(),) * layers
    raw = values.raw
    parameters = _parameters(raw.get("rope_scaling") or raw.get("rope_parameters"), values)
    default = ("rope_theta", family.defaults["rope_theta"])
    theta, factor = _speed(parameters, default, values)
    return (LayerAttention(None, theta, factor),) * layers


def _by_layer_types(values: ConfigValues, layers: int) -> tuple[LayerAttention, ...]:
    raw, where = values.raw, values.where
    of_all = _parameters(raw.get("rope_scaling"), values, ("default",))
    by_kind = _parameters(raw.get("rope_parameters"), values, ("default",))
    speeds = {
        kind: _speed(
            {**_parameters(by_kind.get(kind), values, ("default",)), **of_all}, default, values
        )
        for kind, default in _THETAS.items()
    }
    # transformers halves the window's width: it is the largest distance on either side.
    window = values.count("sliding_window", values.count("local_attention", 128) // 2)
    kinds = raw.get("layer_types")
    if kinds is None:
        every = values.count("global_attn_every_n_layers", 3)
        kinds = [LOCAL if layer % every else GLOBAL for layer in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers or not all(k in _THETAS for k in kinds):
        raise CheckpointError(
            f"{where}: layer_types must be a list of {layers} entries, '{GLOBAL}' or '{LOCAL}'."
        )
    return tuple(LayerAttention(window if kind == LOCAL else None, *speeds[kind]) for kind in kinds)


def _speed(
    parameters: Mapping[str, Any], default: tuple[str, float], values: ConfigValues
) -> tuple[float, float]:
    """Base and factor. ``default`` is the config.json key of the base in older files, and the base
    if it is in neither place."""
    key, usual = default
    theta = parameters.get("rope_theta", values.raw.get(key, usual))
    theta = _number(key, theta, values)
    if _kind(parameters) == "default":
        return theta, 1.0
    return theta, _number("factor", parameters.get("factor"), values, above=0)


def _number(key: str, value: Any, values: ConfigValues, above: float = 1) -> float:
    known = type(value) in (int, float) and math.isfinite(value)
    if not known or not above < value < MOST * MOST:
        raise CheckpointError(
            f"{values.where}: {key} must be a number above {above}, not {value!r}."
        )
    return float(value)


def _parameters(
    found: Any, values: ConfigValues, kinds: tuple[str, ...] = ("default", "linear")
) -> Mapping[str, Any]:
    """A JSON object of rotary parameters, whose type is one of ``kinds``."""
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise CheckpointError(f"{values.where}: the rotary parameters must be JSON objects.")
    if _kind(found) not in kinds:
        raise UnsupportedArchitectureError(
            f"{values.where}: rotary embeddings of type {_kind(found)!r} are not supported, only "
            f"{' and '.join(map(repr, kinds))}."
        )
    return found


def _kind(parameters: Mapping[str, Any]) -> Any:
    return parameters.get("rope_type", parameters.get("type", "default"))
