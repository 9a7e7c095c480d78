"""Sparse embeddings (SPLADE): a weight for each token of the vocabulary, most of them 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint.multi_vector import Task
from sparsebert.checkpoint.sparse_routes import SparsePooling, SparseRoutes, TokenTable
from sparsebert.checkpoint.tokenizer import read_tokenizer
from sparsebert.checkpoint.tokenizer_building import StoredTokenizer
from sparsebert.checkpoint.tokenizer_settings import Side
from sparsebert.checkpoint.vector_layers import VectorLayer
from sparsebert.engine import Encoder
from sparsebert.errors import CheckpointError, InputError, reading
from sparsebert.inference.batching import EngineCall, Floats, RaggedBatch, plan, sparse_weights
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


class TokenLookup:
    """Sparse embeddings by a table: a text has the weight of each token that comes up in it.

    Nothing is computed by the engine, and no special token is put around a text.
    """

    def __init__(self, table: TokenTable) -> None:
        self._table = table

    @cached_property
    def _tokenizer(self) -> StoredTokenizer:
        found = read_tokenizer(self._table.folder)
        if found is None:
            raise CheckpointError(f"{self._table.folder} has no tokenizer to look texts up by.")
        return found

    @cached_property
    def _weights(self) -> Floats:
        return self._table.weights()

    @property
    def vocabulary(self) -> int:
        """How many tokens have a weight."""
        return len(self._weights)

    @property
    def max_length(self) -> int | None:
        """Tokens of a text that is not cut; None if there is no limit."""
        return self._tokenizer.max_length

    def embeddings(self, texts: Texts, *, strict: bool = False) -> list[SparseEmbedding]:
        """One of each text, cut as in `TextTokenizer.encode`.

        Raises InputError for a pair, and CheckpointError for a damaged folder.
        """
        found, cut = self.embeddings_truncated(texts, strict=strict)
        warn_of_cut(texts, cut, self.max_length or 0)
        return found

    def embeddings_truncated(
        self, texts: Texts, *, strict: bool = False, side: Side | None = None
    ) -> tuple[list[SparseEmbedding], list[int]]:
        """As `embeddings`, without the warning: with the indices of the texts that were cut.

        ``side`` is the truncation side, by default the folder's.
        """
        strings = []
        for place, text in enumerate(texts.items):
            if not isinstance(text, str):
                raise InputError(f"{texts.name(place)} is a pair of texts: this takes single ones.")
            strings.append(text)
        with reading("the text by the model's tokenizer", CheckpointError):
            encoded = self._tokenizer.backend.encode_batch(strings, add_special_tokens=False)
        rows = [each.ids for each in encoded]
        cut = [place for place, ids in enumerate(rows) if self.is_too_long(ids)]
        if strict and cut:
            raise too_long(texts.name(cut[0]), len(rows[cut[0]]), self.max_length or 0)
        return [self.of_ids(self.truncated(ids, side)) for ids in rows], cut

    def is_too_long(self, ids: Sequence[int]) -> bool:
        """Whether a text of these tokens is cut."""
        return self.max_length is not None and len(ids) > self.max_length

    def truncated(self, ids: Sequence[int], side: Side | None = None) -> Sequence[int]:
        """The tokens that are read of a text."""
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
                f"the tokenizer of {self._table.folder} gives the token {kept[-1]}, and there are "
                f"{len(self._weights)} weights: they do not belong together."
            )
        kept = kept[self._weights[kept] != 0]
        kept = largest(np.abs(self._weights[kept]), kept, self._table.most)
        return SparseEmbedding(kept, self._weights[kept])


class SparseWays:
    """How a model makes sparse embeddings: `SparseRoutes`, with each table opened but once."""

    def __init__(self, routes: SparseRoutes) -> None:
        self._routes = routes
        ways = (routes.usual, *routes.tasks.values())
        self._lookups = {way: TokenLookup(way) for way in ways if isinstance(way, TokenTable)}

    @property
    def routed(self) -> bool:
        """Whether queries may take another way than documents."""
        return bool(self._routes.tasks)

    def of(self, task: Task | None) -> SparsePooling | TokenLookup:
        """The way of queries or documents, or of texts without a task."""
        way = self._routes.of(task)
        return self._lookups[way] if isinstance(way, TokenTable) else way


def largest(
    sizes: Floats, indices: npt.NDArray[np.int32], most: int | None
) -> npt.NDArray[np.int32]:
    """The ``most`` indices with the largest sizes, ascending; all for None. Both are ``[n]``."""
    if most is None or len(indices) <= most:
        return indices
    return np.sort(indices[np.argsort(-sizes, kind="stable")[:most]])


def sparse_call(pooling: SparsePooling) -> EngineCall:
    """What to ask of the engine. Raises CheckpointError where a folder cannot be embedded."""
    pooling.check()
    if pooling.strategy == "max":  # the logarithm keeps the order: it is taken of the largest only
        return EngineCall("sparse", pooling="max")
    return EngineCall("sparse", pooling="sum twice" if pooling.twice else "sum")


def sparse_embedding(row: Floats, pooling: SparsePooling) -> SparseEmbedding:
    """Of what the engine gave for `sparse_call`, ``[vocabulary]``."""
    indices = np.flatnonzero(row > 0).astype(np.int32)
    indices = largest(row[indices], indices, pooling.most)
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
