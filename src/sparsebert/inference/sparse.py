"""Sparse embeddings (SPLADE): a weight for each token of the vocabulary, most of them 0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint.pooling import SparsePooling
from sparsebert.engine import Encoder
from sparsebert.inference.batching import EngineCall, Floats, RaggedBatch, plan, sparse_weights
from sparsebert.inference.sequences import Tokens


@dataclass(frozen=True, eq=False)
class SparseEmbedding:
    """The token ids with a weight above 0, int32 ``[n]``, ascending, and the weights, float32."""

    indices: npt.NDArray[np.int32]
    values: Floats

    def as_dict(self) -> dict[int, float]:
        """Weight by token id."""
        return dict(zip(self.indices.tolist(), self.values.tolist(), strict=True))


def sparse_call(pooling: SparsePooling) -> EngineCall:
    """What to ask of the engine."""
    if pooling.strategy == "max":  # the logarithm keeps the order: it is taken of the largest only
        return EngineCall("sparse", pooling="max")
    return EngineCall("sparse", pooling="sum twice" if pooling.twice else "sum")


def sparse_embedding(row: Floats, pooling: SparsePooling) -> SparseEmbedding:
    """Of what the engine gave for `sparse_call`, ``[vocabulary]``."""
    indices = np.flatnonzero(row > 0).astype(np.int32)
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
