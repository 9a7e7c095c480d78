"""BERT as the papers write it, in plain numpy and float64: what the engine is held against.

One sequence at a time, no batching, no tricks; nothing is shared with the package. Weights are a
mapping of canonical names (those of Hugging Face without the ``bert.`` prefix) to arrays. What
other families add is there too, and done where the weights ask for it.
Sources: Devlin et al. 2018 (arXiv:1810.04805), Vaswani et al. 2017 (arXiv:1706.03762), Hendrycks
and Gimpel 2016 (arXiv:1606.08415) for GELU; Su et al. 2021 (arXiv:2104.09864) for rotary positions,
Raffel et al. 2019 (arXiv:1910.10683) for biases by distance, Press et al. 2021 (arXiv:2108.12409)
for slopes, Shazeer 2020 (arXiv:2002.05202) for
gated layers, Elfwing et al. 2017 (arXiv:1702.03118) for SiLU, Warner et al. 2024
(arXiv:2412.13663) for ModernBERT, He et al. 2020 (arXiv:2006.03654) for DeBERTa.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_erf = np.frompyfunc(math.erf, 1, 1)


def gelu(x: Array) -> Array:
    """x times the normal distribution's share below x."""
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)).astype(np.float64))


def gelu_tanh(x: Array) -> Array:
    """The tanh approximation of GELU (``gelu_new``)."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


@dataclass(frozen=True)
class ReferenceBert:
    """``heads`` is the number of attention heads; the other sizes are read off the weights.

    ``first_position`` is the row of the position table for the first token. Of each layer,
    ``windows`` has the largest distance at which tokens see each other and ``thetas`` the base of
    rotary positions; None where there is none. ``factor`` divides the latter. ``order`` numbers the
    layers' weights, where several layers have the same. ``slopes`` of each head take from a score.
    ``distances`` is what DeBERTa's attention knows of them: ``rows``, ``buckets``, ``farthest`` and
    ``terms``.
    """

    weights: Mapping[str, npt.NDArray]
    heads: int
    activation: str = "gelu"
    epsilon: float = 1e-12
    first_position: int = 0
    windows: Sequence[int | None] = ()
    thetas: Sequence[float | None] = ()
    factor: float = 1.0
    order: Sequence[int] = ()
    slopes: Sequence[float] = ()
    distances: Any = None

    def hidden(self, ids: Sequence[int], type_ids: Sequence[int] | None = None) -> Array:
        """The last layer, ``[tokens, hidden]``."""
        x = self._norm(self._embed(ids, type_ids), "embeddings.LayerNorm")
        if "embeddings.projection.weight" in self.weights:
            x = self._linear(x, "embeddings.projection")
        norm_first = "encoder.LayerNorm.weight" in self.weights
        for layer, name in enumerate(self._layers()):
            if norm_first:
                first = f"{name}.attention.LayerNorm"
                known = f"{first}.weight" in self.weights  # of the first layer the embeddings'
                x = x + self._attention(self._norm(x, first) if known else x, layer, name)
                x = x + self._feed_forward(self._norm(x, f"{name}.intermediate.LayerNorm"), name)
            else:
                given, again = x, f"{name}.attention.residual.LayerNorm"
                x = x + self._attention(x, layer, name)
                x = self._norm(x, f"{name}.attention.output.LayerNorm")
                if f"{again}.weight" in self.weights:
                    x = self._norm(given + x, again)
                x = self._norm(x + self._feed_forward(x, name), f"{name}.output.LayerNorm")
        return self._norm(x, "encoder.LayerNorm") if norm_first else x

    def _layers(self) -> list[str]:
        stored = 0
        while f"encoder.layer.{stored}.attention.output.dense.weight" in self.weights:
            stored += 1
        return [f"encoder.layer.{number}" for number in self.order or range(stored)]

    def head_logits(
        self, shape: Any, ids: Sequence[int], type_ids: Sequence[int] | None = None
    ) -> Array:
        """``[outputs]`` or ``[tokens, outputs]`` of a head.

        ``shape`` names its pooling, ``dense`` with activation, ``norm`` and ``last``.
        """
        x = self.hidden(ids, type_ids)
        if shape.pooling:
            x = x[:1] if shape.pooling == "cls" else x.mean(0, keepdims=True)
        if shape.dense:
            x = self._linear(x, shape.dense)
        if shape.activation:
            x = ACTIVATIONS[shape.activation](x)
        if shape.norm:
            x = self._norm(x, shape.norm)
        own = f"{shape.last}.weight"
        last = self._product(x, own if own in self.weights else "embeddings.word_embeddings.weight")
        last = last + self._bias(shape.last_bias)
        return last[0] if shape.pooling else last

    def pooled(
        self,
        ids: Sequence[int],
        type_ids: Sequence[int] | None = None,
        *,
        mode: str = "mean",
        normalize: bool = False,
    ) -> Array:
        """A sentence embedding ``[hidden]`` as sentence-transformers pools it."""
        x = self.hidden(ids, type_ids)
        vector = {
            "mean": lambda: x.mean(0),
            "cls": lambda: x[0],
            "max": lambda: x.max(0),
            "mean_sqrt_len": lambda: x.sum(0) / math.sqrt(len(x)),
        }[mode]()
        return vector / np.linalg.norm(vector) if normalize else vector

    def sequence_logits(self, ids: Sequence[int], type_ids: Sequence[int] | None = None) -> Array:
        """``[labels]``: the pooler's tanh over the first token, then the classifier."""
        first = self.hidden(ids, type_ids)[:1]
        return self._linear(np.tanh(self._linear(first, "pooler.dense")), "classifier")[0]

    def question_logits(self, ids: Sequence[int], type_ids: Sequence[int] | None = None) -> Array:
        """``[tokens, 2]``: start and end."""
        return self._linear(self.hidden(ids, type_ids), "qa_outputs")

    def token_logits(self, ids: Sequence[int], type_ids: Sequence[int] | None = None) -> Array:
        """``[tokens, labels]``."""
        return self._linear(self.hidden(ids, type_ids), "classifier")

    def vocabulary_logits(self, ids: Sequence[int], type_ids: Sequence[int] | None = None) -> Array:
        """``[tokens, vocabulary]``; the decoder is the word embeddings unless it has its own."""
        head = "cls.predictions"
        x = self._linear(self.hidden(ids, type_ids), f"{head}.transform.dense")
        x = self._norm(ACTIVATIONS[self.activation](x), f"{head}.transform.LayerNorm")
        own = f"{head}.decoder.weight"
        decoder = own if own in self.weights else "embeddings.word_embeddings.weight"
        return self._product(x, decoder) + self._get(f"{head}.bias")

    def _embed(self, ids: Sequence[int], type_ids: Sequence[int] | None) -> Array:
        kinds = np.zeros(len(ids), int) if type_ids is None else np.asarray(type_ids)
        x = self._get("embeddings.word_embeddings.weight")[np.asarray(ids)]
        if "embeddings.position_embeddings.weight" in self.weights:
            table = self._get("embeddings.position_embeddings.weight")
            x = x + table[self.first_position : self.first_position + len(ids)]
        if "embeddings.token_type_embeddings.weight" in self.weights:
            x = x + self._get("embeddings.token_type_embeddings.weight")[kinds]
        if "embeddings.task_type_embeddings.weight" in self.weights:
            x = x + self._get("embeddings.task_type_embeddings.weight")[0]
        return x

    def _attention(self, x: Array, layer: int, name: str) -> Array:
        return self._linear(self._attend(x, layer, name), f"{name}.attention.output.dense")

    def _feed_forward(self, x: Array, name: str) -> Array:
        inner = self._linear(x, f"{name}.intermediate.dense")
        if f"{name}.intermediate.gate.weight" in self.weights:
            inner = np.concatenate([self._linear(x, f"{name}.intermediate.gate"), inner], axis=1)
        width = self._get(f"{name}.output.dense.weight").shape[1]
        activated = ACTIVATIONS[self.activation](inner[:, :width])
        if inner.shape[1] > width:
            activated = activated * inner[:, width:]
        return self._linear(activated, f"{name}.output.dense")

    def _projections(self, x: Array, layer: int, name: str) -> dict[str, Array]:
        """Queries, keys and values ``[heads, tokens, size]``, turned where positions are rotary."""
        tokens, hidden = x.shape
        kinds = ("query", "key", "value")
        fused = f"{name}.attention.self.query_key_value"
        if f"{fused}.weight" in self.weights:
            rows = np.split(self._linear(x, fused), 3, axis=1)
        else:
            rows = [self._linear(x, f"{name}.attention.self.{kind}") for kind in kinds]
        for place, kind in enumerate(kinds):
            norm = f"{name}.attention.self.{kind}_LayerNorm"
            if f"{norm}.weight" in self.weights:
                rows[place] = self._norm(rows[place], norm)
        parts = {
            kind: each.reshape(tokens, self.heads, hidden // self.heads).transpose(1, 0, 2)
            for kind, each in zip(kinds, rows, strict=True)
        }
        theta = self.thetas[layer] if self.thetas else None
        if theta is not None:
            parts |= {kind: turned(parts[kind], theta, self.factor) for kind in ("query", "key")}
        return parts

    def _score_bias(self, layer: int, tokens: int) -> Array:
        """What is added to scores: ``[heads, tokens, tokens]``, queries by keys."""
        distance = np.arange(tokens)[None, :] - np.arange(tokens)[:, None]
        bias = np.zeros((self.heads, tokens, tokens))
        if self.slopes:
            bias -= np.array(self.slopes)[:, None, None] * np.abs(distance)
        name = "encoder.relative_attention_bias.weight"
        if name in self.weights:
            bias += self._get(name)[bucket(distance)].transpose(2, 0, 1)
        window = self.windows[layer] if self.windows else None
        return bias if window is None else np.where(np.abs(distance) > window, -np.inf, bias)

    def _divisor(self, hidden: int) -> float:
        terms = 1 + len(self.distances.terms) if self.distances else 1
        return math.sqrt(terms * (hidden // self.heads))

    def _distance_scores(self, name: str, query: Array, key: Array) -> Any:
        """DeBERTa's terms of a score ``[heads, tokens, tokens]``, before they are divided."""
        if not self.distances:
            return 0.0
        tokens = query.shape[1]
        rows = self._get("encoder.rel_embeddings.weight")
        if "encoder.rel_embeddings.LayerNorm.weight" in self.weights:
            rows = self._norm(rows, "encoder.rel_embeddings.LayerNorm")
        chosen = [
            [distance_row(i - j, self.distances) for j in range(tokens)] for i in range(tokens)
        ]
        parts = {}
        for kind in ("query", "key"):
            projected = self._linear(rows, f"{name}.attention.self.{kind}")
            split = projected.reshape(len(rows), self.heads, -1).transpose(1, 0, 2)
            parts[kind] = self._rounded(split)[:, chosen]  # [heads, tokens, tokens, size]
        scores = np.zeros((self.heads, tokens, tokens))
        if "c2p" in self.distances.terms:
            scores += np.einsum("hid,hijd->hij", query, parts["key"])
        if "p2c" in self.distances.terms:
            scores += np.einsum("hjd,hijd->hij", key, parts["query"])
        return scores

    def _rounded(self, heads: Array) -> Array:
        """Queries or keys as products take them."""
        return heads

    def _attend(self, x: Array, layer: int, name: str) -> Array:
        tokens, hidden = x.shape
        query, key, value = self._projections(x, layer, name).values()
        scores = query @ key.transpose(0, 2, 1) + self._distance_scores(name, query, key)
        scores = scores / self._divisor(hidden) + self._score_bias(layer, tokens)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return (weights @ value).transpose(1, 0, 2).reshape(tokens, hidden)

    def _linear(self, x: Array, name: str) -> Array:
        return self._product(x, f"{name}.weight") + self._bias(f"{name}.bias")

    def _product(self, x: Array, name: str) -> Array:
        return x @ self._get(name).T

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + self.epsilon)
        return centred / deviation * self._get(f"{name}.weight") + self._bias(f"{name}.bias")

    def _bias(self, name: str) -> Any:
        return self._get(name) if name in self.weights else 0.0

    def _get(self, name: str) -> Array:
        return np.asarray(self.weights[name], np.float64)


def turned(x: Array, theta: float, factor: float) -> Array:
    """Rotary positions on ``[heads, tokens, size]``: dimensions i and i + size/2 are a point."""
    tokens, half = x.shape[1], x.shape[2] // 2
    angles = np.arange(tokens)[:, None] / factor * theta ** (-np.arange(half) / half)
    points = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([points.real, points.imag], axis=-1)


def distance_row(distance: int, distances: Any) -> int:
    """DeBERTa's row of the embeddings of a distance of a query from a key."""
    middle, far = distances.buckets // 2, abs(distance)
    if distances.buckets and far > middle:
        # The bucket whose end the distance does not pass: ends grow by the same factor each.
        factor = ((distances.farthest - 1) / middle) ** (1 / (middle - 1)) if middle > 1 else 1.0
        step = next((n for n in range(middle) if far <= middle * factor**n * (1 + 1e-9)), middle)
        distance = (middle + step) * (1 if distance > 0 else -1)
    return min(max(distance + distances.rows // 2, 0), distances.rows - 1)


def bucket(distance: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """MPNet's bucket (of 32) of a key's distance from a query, counted place by place."""

    def of(far: int) -> int:
        if far < 8:
            return far
        # 8 to 127 in 8 steps of equal ratio: the step k whose 8 x 16^(k/8) is not yet beyond.
        return 8 + sum(1 for k in range(1, 8) if far**8 >= 8**8 * 16**k)

    return np.vectorize(lambda d: of(abs(int(d))) + (16 if d > 0 else 0))(distance)
