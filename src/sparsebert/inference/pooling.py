"""Pooling of a text's token vectors into one, as a sentence-transformers folder specifies it.

The engine pools where it can, while the token vectors are still in cache. Several poolings at once,
those that few models use, and pooling that skips the tokens of a prompt are computed here from the
engine's token vectors. The layers after the pooling (`VectorLayer`) are a small product per text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from sparsebert.checkpoint import Pooling
from sparsebert.checkpoint.vector_layers import LAYER_NORM_EPSILON, VectorLayer
from sparsebert.inference.batching import EngineCall, Floats
from sparsebert.inference.labelling import sigmoid

ENGINE_MODES = ("mean", "cls", "max", "mean_sqrt_len")
POOLING_MODES = (*ENGINE_MODES, "weightedmean", "lasttoken")
_SMALLEST = np.float32(1e-12)  # divisor


class Pooler:
    """Turns a model's token vectors into embeddings: an engine call, and the steps after it."""

    def __init__(self, pooling: Pooling, hidden_size: int) -> None:
        self.pooling = pooling
        self.width = pooling.width(hidden_size)

    @cached_property
    def _layers(self) -> list[Callable[[Floats], Floats]]:
        return [layer_function(layer) for layer in self.pooling.layers]

    def call(self, *, normalize: bool, skipped: int = 0) -> EngineCall:
        """The engine call for embeddings that leave out the first ``skipped`` tokens.

        Raises CheckpointError for a folder whose texts cannot be embedded.
        """
        self.pooling.check()
        return self._call(normalize=normalize, skipped=skipped)

    def score_call(self) -> EngineCall:
        """The engine call for a pooling whose layers give scores (`Pooling.scores`)."""
        return self._call(normalize=False)

    def _call(self, *, normalize: bool, skipped: int = 0) -> EngineCall:
        (mode, *others) = self.pooling.modes
        if skipped or others or mode not in ENGINE_MODES:
            return EngineCall("hidden", per_token=True)
        plain = not self.pooling.layers
        return EngineCall("pooled", pooling=mode, normalize=normalize and plain)

    def embeddings(
        self,
        call: EngineCall,
        rows: Sequence[Floats] | Floats,
        *,
        normalize: bool,
        skipped: int | Sequence[int] = 0,
    ) -> Floats:
        """Embeddings, float32 ``[texts, width]``, from the engine's output for `call`.

        ``skipped`` is the number of leading tokens that are not pooled, for all texts or for each.
        """
        if not len(rows):
            return np.empty((0, self.width), np.float32)
        if call.per_token:
            firsts = np.broadcast_to(skipped, len(rows)).tolist()
            modes = self.pooling.modes
            vectors = np.stack(
                [pool_tokens(each, modes, first) for each, first in zip(rows, firsts, strict=True)]
            )
        else:
            vectors = np.asarray(rows)
        if call.normalize:
            return vectors
        for layer in self._layers:
            vectors = layer(vectors)
        return unit(vectors) if normalize else vectors


def pool_tokens(states: Floats, modes: Sequence[str], skipped: int = 0) -> Floats:
    """The poolings ``modes`` of one text's ``[tokens, hidden]``, concatenated.

    The first ``skipped`` tokens are left out, unless there are no others.
    """
    first = skipped if skipped < len(states) else 0
    kept = states[first:]
    weights = np.arange(first + 1, len(states) + 1, dtype=np.float32)

    def pooled(mode: str) -> Floats:
        if mode == "cls":
            return np.asarray(kept[0])
        if mode == "lasttoken":
            return np.asarray(kept[-1])
        if mode == "max":
            return np.asarray(kept.max(axis=0))
        if mode == "weightedmean":  # by position, from 1 (Muennighoff 2022, arXiv:2202.08904)
            return np.asarray(weights @ kept / weights.sum())
        total = kept.sum(axis=0, dtype=np.float32)
        return np.asarray(total / np.float32(len(kept) if mode == "mean" else math.sqrt(len(kept))))

    return np.concatenate([pooled(mode) for mode in modes])


def layer_function(layer: VectorLayer) -> Callable[[Floats], Floats]:
    """The layer as a function of vectors ``[count, width]``; its weights are read here."""
    if layer.kind == "normalize":
        return unit
    if layer.kind == "truncate":
        return lambda x: np.ascontiguousarray(x[:, : layer.outputs])
    weights = layer.weights()
    bias = weights.get("bias", np.float32(0))
    if layer.kind == "norm":

        def norm(x: Floats) -> Floats:
            centred = x - x.mean(axis=1, keepdims=True)
            variance = np.square(centred).mean(axis=1, keepdims=True)
            return np.asarray(
                centred / np.sqrt(variance + np.float32(LAYER_NORM_EPSILON)) * weights["weight"]
                + bias
            )

        return norm
    activate = _ACTIVATIONS[layer.activation]

    def dense(x: Floats) -> Floats:
        made = activate(np.asarray(x @ weights["weight"].T + bias))
        if layer.residual:
            made += x @ weights["residual"].T if "residual" in weights else x
        return made

    return dense


_erf = np.vectorize(math.erf, otypes=[np.float64])  # numpy has none


def _gelu(x: Floats) -> Floats:
    return np.asarray(x * (0.5 * (1 + _erf(x / math.sqrt(2)))), np.float32)


_ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "identity": lambda x: x,
    "tanh": lambda x: np.asarray(np.tanh(x)),
    "relu": lambda x: np.asarray(np.maximum(x, 0)),
    "gelu": _gelu,
    "sigmoid": sigmoid,
    "silu": lambda x: np.asarray(x * sigmoid(x)),
}


def unit(vectors: Floats) -> Floats:
    """Vectors ``[count, width]`` scaled to length 1."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, _SMALLEST))
