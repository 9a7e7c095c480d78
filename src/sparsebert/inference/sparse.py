"""Sparse embeddings (SPLADE): a weight for each token of the vocabulary, most of them 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint.sparse_routes import SparsePooling, TokenTable
from sparsebert.checkpoint.tokenizer import read_tokenizer
from sparsebert.checkpoint.tokenizer_building import StoredTokenizer
from sparsebert.checkpoint.tokenizer_settings import Side
from sparsebert.checkpoint.vector_layers import VectorLayer
from sparsebert.engine import Encoder
from sparsebert.errors import CheckpointError, InputError, reading
from sparsebert.inference.batching import EngineCall, Floats, results, sparse_weights
from sparsebert.inference.pooling import layer_function
from sparsebert.inference.sequences import Tokens
from sparsebert.inference.texts import Texts
from sparsebert.inference.tokenizing import TextTokenizer, too_long, warn_of_cut


@dataclass(frozen=True, eq=False)
class SparseEmbedding:
    """The token ids whose weight is not 0, int32 ``[n]``, ascending, and the weights, float32."""

    indices: npt.NDArray[np.int32]
    values: Floats

    def as_dict(self) -> dict[int, float]:
        """Weight by token id."""
        return dict(zip(self.indices.tolist(), self.values.tolist(), strict=True))


class TokenWeigher:
    """Sparse embeddings from a weight of each token's last hidden state, as in BGE-M3.

    A token of the vocabulary gets the largest weight of its occurrences in the text. The
    tokenizer's tokens for beginning, end, padding and unknown text get none.
    """

    def __init__(self, layer: VectorLayer, tokenizer: TextTokenizer | None) -> None:
        self._layer = layer
        self._special = tokenizer.unweighed_ids if tokenizer else []

    @cached_property
    def _weights(self) -> Callable[[Floats], Floats]:
        return layer_function(self._layer)

    def embedding(self, states: Floats, tokens: Tokens) -> SparseEmbedding:
        """The embedding of a text, from its last hidden states ``[tokens, hidden]``."""
        weights = self._weights(states)[:, 0]
        kept = ~np.isin(tokens.ids, self._special) & (weights > 0)
        indices, places = np.unique(tokens.ids[kept], return_inverse=True)
        values = np.zeros(len(indices), np.float32)
        np.maximum.at(values, places, weights[kept])
        return SparseEmbedding(indices.astype(np.int32), values)


class TokenLookup:
    """Sparse embeddings from a table: a text gets the weight of each token that occurs in it.

    The engine computes nothing, and no special tokens are added to a text.
    """

    def __init__(self, table: TokenTable) -> None:
        self._table = table

    @cached_property
    def _tokenizer(self) -> StoredTokenizer:
        found = read_tokenizer(self._table.folder)
        if found is None:
            raise CheckpointError(f"{self._table.folder} has no tokenizer to look up texts with.")
        return found

    @cached_property
    def _weights(self) -> Floats:
        return self._table.weights()

    @property
    def vocabulary(self) -> int:
        """Number of tokens in the table."""
        return len(self._weights)

    @property
    def max_length(self) -> int | None:
        """Maximum tokens of a text that is not truncated; None if there is no limit."""
        return self._table.longest or self._tokenizer.max_length

    def embeddings(self, texts: Texts, *, strict: bool = False) -> list[SparseEmbedding]:
        """One for each text, truncated as in `TextTokenizer.encode`.

        Raises InputError for a pair, and CheckpointError for a damaged folder.
        """
        found, cut = self.embeddings_truncated(texts, strict=strict)
        warn_of_cut(texts, cut, self.max_length or 0)
        return found

    def embeddings_truncated(
        self, texts: Texts, *, strict: bool = False, side: Side | None = None
    ) -> tuple[list[SparseEmbedding], list[int]]:
        """As `embeddings`, with the indices of the truncated texts instead of the warning.

        ``side`` is the truncation side, by default the folder's.
        """
        strings = []
        for place, text in enumerate(texts.items):
            if not isinstance(text, str):
                raise InputError(
                    f"{texts.name(place)} is a pair of texts: this model takes single texts."
                )
            strings.append(text)
        with reading("the text, with the model's tokenizer,", CheckpointError):
            encoded = self._tokenizer.backend.encode_batch(strings, add_special_tokens=False)
        rows = [each.ids for each in encoded]
        cut = [place for place, ids in enumerate(rows) if self.is_too_long(ids)]
        if strict and cut:
            raise too_long(texts.name(cut[0]), len(rows[cut[0]]), self.max_length or 0)
        return [self.of_ids(self.truncated(ids, side)) for ids in rows], cut

    def is_too_long(self, ids: Sequence[int]) -> bool:
        """Whether a text of these tokens is truncated."""
        return self.max_length is not None and len(ids) > self.max_length

    def truncated(self, ids: Sequence[int], side: Side | None = None) -> Sequence[int]:
        """The tokens of a text that are used."""
        if not self.is_too_long(ids):
            return ids
        if (side or self._tokenizer.truncation_side) == "left":
            return ids[-(self.max_length or 0) :]
        return ids[: self.max_length]

    def of_ids(self, ids: Sequence[int]) -> SparseEmbedding:
        """The embedding of a text with these tokens."""
        kept = np.unique(np.array(ids, np.int32))
        if len(kept) and kept[-1] >= len(self._weights):
            raise CheckpointError(
                f"the tokenizer of {self._table.folder} gives token id {kept[-1]}, but its table "
                f"has {len(self._weights)} weights: they do not belong together."
            )
        kept = kept[self._weights[kept] != 0]
        kept = largest(np.abs(self._weights[kept]), kept, self._table.most)
        return SparseEmbedding(kept, self._weights[kept])


def largest(
    sizes: Floats, indices: npt.NDArray[np.int32], most: int | None
) -> npt.NDArray[np.int32]:
    """The ``most`` indices with the largest sizes, ascending; None keeps all. Both are ``[n]``."""
    if most is None or len(indices) <= most:
        return indices
    return np.sort(indices[np.argsort(-sizes, kind="stable")[:most]])


def sparse_call(pooling: SparsePooling) -> EngineCall:
    """The engine call. Raises CheckpointError for a folder whose texts cannot be embedded."""
    pooling.check()
    if pooling.strategy == "max":  # log preserves order, so it is applied to the maximum only
        return EngineCall("sparse", pooling="max")
    return EngineCall("sparse", pooling="sum twice" if pooling.twice else "sum")


def sparse_embedding(row: Floats, pooling: SparsePooling) -> SparseEmbedding:
    """The embedding from the engine's output for `sparse_call`, ``[vocabulary]``."""
    indices = np.flatnonzero(row > 0).astype(np.int32)
    indices = largest(row[indices], indices, pooling.most)
    values = row[indices]
    if pooling.strategy == "max":
        values = sparse_weights(values, twice=pooling.twice)
    return SparseEmbedding(indices, values)


def sparse_embeddings(
    encoder: Encoder, pooling: SparsePooling, sequences: Sequence[Tokens], batch_size: int
) -> list[SparseEmbedding]:
    """One for each sequence, in the order given."""
    found = {
        index: sparse_embedding(row, pooling)
        for index, row in results(encoder, sparse_call(pooling), sequences, batch_size)
    }
    return [found[index] for index in range(len(sequences))]
