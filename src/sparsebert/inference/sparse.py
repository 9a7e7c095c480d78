"""Sparse embeddings (SPLADE): a weight for each token of the vocabulary, most of them 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint.pooling import SparsePooling
from sparsebert.checkpoint.vector_layers import VectorLayer
from sparsebert.engine import Encoder
from sparsebert.inference.batching import EngineCall, Floats, RaggedBatch, plan, sparse_weights
from sparsebert.inference.pooling import layer_function
from sparsebert.inference.sequences import Tokens
from sparsebert.inference.tokenizing import TextTokenizer


@dataclass(frozen=True, eq=False)
class SparseEmbedding:
    """The token ids with a weight above 0, int32 ``[n]``, ascending, and the weights, float32."""

    indices: npt.NDArray[np.int32]
    values: Floats

    def as_dict(self) -> dict[int, float]:
        """Weight by token id."""
        return dict(zip(self.indices.tolist(), self.values.tolist(), strict=True))


class TokenWeigher:
    """Sparse embeddings by a weight of each token's last hidden state, as BGE-M3 has them.

    A token of the vocabulary has the largest weight of its places in the text. The tokenizer's
    tokens for beginning, end, padding and what is unknown have none.
    """

    def __init__(self, layer: VectorLayer, tokenizer: TextTokenizer | None) -> None:
        self._layer = layer
        self._special = tokenizer.unweighed_ids if tokenizer else []

    @cached_property
    def _weights(self) -> Callable[[Floats], Floats]:
        return layer_function(self._layer)

    def embedding(self, states: Floats, tokens: Tokens) -> SparseEmbedding:
        """Of a text's last hidden states, ``[tokens, hidden]``."""
        weights = self._weights(states)[:, 0]
        kept = ~np.isin(tokens.ids, self._special) & (weights > 0)
        indices, places = np.unique(tokens.ids[kept], return_inverse=True)
        values = np.zeros(len(indices), np.float32)
        np.maximum.at(values, places, weights[kept])
        return SparseEmbedding(indices.astype(np.int32), values)


def sparse_call(pooling: SparsePooling) -> EngineCall:
    """What to ask of the engine. Raises CheckpointError where a folder cannot be embedded."""
    pooling.check()
    if pooling.strategy == "max":  # the logarithm keeps the order: it is taken of the largest only
        return EngineCall("sparse", pooling="max")
    return EngineCall("sparse", pooling="sum twice" if pooling.twice else "sum")


def sparse_embedding(row: Floats, pooling: SparsePooling) -> SparseEmbedding:
    """Of what the engine gave for `sparse_call`, ``[vocabulary]``."""
    indices = np.flatnonzero(row > 0).astype(np.int32)
    if pooling.most is not None and len(indices) > pooling.most:
        largest = np.argsort(-row[indices], kind="stable")[: pooling.most]
        indices = np.sort(indices[largest])
    values = row[indices]
    if pooling.strategy == "max":
        values = sparse_weights(values, twice=pooling.twice)
    return SparseEmbedding(indices, values)


def sparse_embeddings(
    encoder: Encoder, pooling: SparsePooling, sequences: Sequence[Tokens], batch_size: int
) -> list[SparseEmbedding]:
    """One of each sequence, in the order given."""
    call = sparse_call(pooling)

    def each() -> Iterator[tuple[int, SparseEmbedding]]:
        for indices in plan([len(sequence) for sequence in sequences], batch_size):
            rows = call.rows(encoder, RaggedBatch.of([sequences[index] for index in indices]))
            for index, row in zip(indices, rows, strict=True):
                yield index, sparse_embedding(row, pooling)

    return [found for _, found in sorted(each(), key=lambda pair: pair[0])]
