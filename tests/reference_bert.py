"""BERT as the papers write it, in plain numpy and float64: what the engine is held against.

One sequence at a time, no batching, no tricks; nothing is shared with the package. Weights are a
mapping of canonical names (those of Hugging Face without the ``bert.`` prefix) to arrays.
Sources: Devlin et al. 2018 (arXiv:1810.04805), Vaswani et al. 2017 (arXiv:1706.03762), Hendrycks
and Gimpel 2016 (arXiv:1606.08415) for GELU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_erf = np.frompyfunc(math.erf, 1, 1)


def gelu(x: Array) -> Array:
    """x times the normal distribution's share below x."""
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)).astype(np.float64))


def gelu_tanh(x: Array) -> Array:
    """The tanh approximation of GELU (``gelu_new``, ``gelu_pytorch_tanh``)."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": lambda x: np.maximum(x, 0),
}


@dataclass(frozen=True)
class ReferenceBert:
    """``heads`` is the number of attention heads; the other sizes are read off the weights."""

    weights: Mapping[str, npt.NDArray]
    heads: int
    activation: str = "gelu"
    epsilon: float = 1e-12

    def hidden(self, ids: Sequence[int], type_ids: Sequence[int] | None = None) -> Array:
        """The last layer, ``[tokens, hidden]``."""
        kinds = np.zeros(len(ids), int) if type_ids is None else np.asarray(type_ids)
        x = (
            self._get("embeddings.word_embeddings.weight")[np.asarray(ids)]
            + self._get("embeddings.position_embeddings.weight")[: len(ids)]
            + self._get("embeddings.token_type_embeddings.weight")[kinds]
        )
        x = self._norm(x, "embeddings.LayerNorm")
        layer = 0
        while f"encoder.layer.{layer}.attention.self.query.weight" in self.weights:
            name = f"encoder.layer.{layer}"
            attended = self._linear(self._attend(x, name), f"{name}.attention.output.dense")
            x = self._norm(x + attended, f"{name}.attention.output.LayerNorm")
            inner = ACTIVATIONS[self.activation](self._linear(x, f"{name}.intermediate.dense"))
            x = self._norm(
                x + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm"
            )
            layer += 1
        return x

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
        decoder = self._get(own if own in self.weights else "embeddings.word_embeddings.weight")
        return x @ decoder.T + self._get(f"{head}.bias")

    def _attend(self, x: Array, name: str) -> Array:
        tokens, hidden = x.shape
        query, key, value = (
            self._linear(x, f"{name}.attention.self.{kind}")
            .reshape(tokens, self.heads, hidden // self.heads)
            .transpose(1, 0, 2)
            for kind in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(hidden // self.heads)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return (weights @ value).transpose(1, 0, 2).reshape(tokens, hidden)

    def _linear(self, x: Array, name: str) -> Array:
        return x @ self._get(f"{name}.weight").T + self._get(f"{name}.bias")

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + self.epsilon)
        return centred / deviation * self._get(f"{name}.weight") + self._get(f"{name}.bias")

    def _get(self, name: str) -> Array:
        return np.asarray(self.weights[name], np.float64)
