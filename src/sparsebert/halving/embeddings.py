"""Embeddings of any kind that two models are compared by.

| kind | how near two texts are | the same text by both models |
|---|---|---|
| dense | cosine | cosine |
| sparse (SPLADE) | scalar product, or what the folder says | cosine |
| tokens (ColBERT) | MaxSim of a query's and a document's vectors | its tokens' mean cosine |
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from sparsebert.checkpoint.embedding_kinds import EmbeddingKind
from sparsebert.checkpoint.multi_vector import Task
from sparsebert.checkpoint.sentence_transformers import read_similarity
from sparsebert.halving.comparison import Floats
from sparsebert.inference import Model
from sparsebert.inference.texts import as_texts
from sparsebert.inference.tokenizing import TruncationWarning

_MOST_TEXTS = 1000  # with a vector for each token: a million scores are some 20 seconds
_MOST_NUMBERS = 1 << 26  # of all their token vectors: 256 MB a model
_SMALLEST = 1e-12  # of a divisor


class Embeddings(Protocol):
    """What a model makes of some texts, as queries and as documents."""

    def similarities(self, queries: int) -> Floats:
        """How near all documents are to each of the first ``queries``, ``[queries, texts]``."""

    def cosines(self, other: Any, count: int) -> Floats:
        """How alike this and another model embed the first documents, ``[count]``."""


class DenseEmbeddings:
    """One vector a text."""

    def __init__(self, model: Model, texts: Sequence[str]) -> None:
        self._units = _units(model.embed(texts).astype(np.float64))

    def similarities(self, queries: int) -> Floats:
        """See `Embeddings`."""
        return np.asarray(self._units[:queries] @ self._units.T)

    def cosines(self, other: DenseEmbeddings, count: int) -> Floats:
        """See `Embeddings`."""
        return np.asarray(np.einsum("ij,ij->i", self._units[:count], other._units[:count]))


class SparseEmbeddings:
    """Weights of the vocabulary's tokens, as a sparse matrix ``[texts, vocabulary]``."""

    def __init__(self, model: Model, texts: Sequence[str]) -> None:
        from scipy.sparse import csr_matrix

        def matrix(task: Task) -> Any:
            found = model.embed_sparse(texts, task=task)
            starts = np.concatenate([[0], np.cumsum([len(each.indices) for each in found])])
            values = np.concatenate([each.values for each in found]).astype(np.float64)
            indices = np.concatenate([each.indices for each in found])
            return csr_matrix((values, indices, starts), shape=(len(texts), columns))

        columns = model.config.vocab_size
        self._weights = matrix("document")
        alike = model.prompts.query == model.prompts.document and not model.sparse_ways.routed
        self._queries = self._weights if alike else matrix("query")
        self._norms = _norms(self._weights)
        self._cosine = read_similarity(model.path, usual="dot") == "cosine"

    def similarities(self, queries: int) -> Floats:
        """See `Embeddings`."""
        asked = self._queries[:queries]
        found = (asked @ self._weights.T).toarray()
        if self._cosine:
            found /= np.maximum(np.outer(_norms(asked), self._norms), _SMALLEST)
        return np.asarray(found)

    def cosines(self, other: SparseEmbeddings, count: int) -> Floats:
        """See `Embeddings`. Two texts without any weights are alike."""
        products = self._weights[:count].multiply(other._weights[:count]).sum(axis=1)
        norms = self._norms[:count] * other._norms[:count]
        both_empty = (self._norms[:count] == 0) & (other._norms[:count] == 0)
        found = np.asarray(products)[:, 0] / np.maximum(norms, _SMALLEST)
        return np.asarray(np.where(both_empty, 1.0, found))


class TokenEmbeddings:
    """A vector for each token of a text."""

    def __init__(self, model: Model, texts: Sequence[str]) -> None:
        assert model.token_vectors is not None
        with warnings.catch_warnings():  # most queries are shorter than texts
            warnings.simplefilter("ignore", TruncationWarning)
            self._queries = model.embed_tokens(texts, task="query")
        self._documents = model.embed_tokens(texts, task="document")
        self._score = model.token_vectors.scores

    def similarities(self, queries: int) -> Floats:
        """See `Embeddings`."""
        scores = [self._score(each, self._documents) for each in self._queries[:queries]]
        return np.asarray(scores, np.float64)

    def cosines(self, other: TokenEmbeddings, count: int) -> Floats:
        """See `Embeddings`. A text none of whose tokens are kept is alike."""
        found = np.ones(count)
        for place, (mine, others) in enumerate(
            zip(self._documents[:count], other._documents[:count], strict=True)
        ):
            if len(mine):
                both = (_units(each.astype(np.float64)) for each in (mine, others))
                found[place] = np.einsum("ij,ij->i", *both).mean()
        return found


_KINDS: dict[EmbeddingKind, Any] = {
    "dense": DenseEmbeddings,
    "sparse": SparseEmbeddings,
    "tokens": TokenEmbeddings,
}


def embeddings(model: Model, texts: Sequence[str], kind: EmbeddingKind) -> Embeddings:
    """The model's embeddings of the texts."""
    made: Embeddings = _KINDS[kind](model, texts)
    return made


def that_fit(model: Model, texts: Sequence[str], kind: EmbeddingKind) -> int:
    """How many of the first texts are compared: of one vector a text all."""
    if kind != "tokens":
        return len(texts)
    assert model.token_vectors is not None
    tokens = model.tokenizer.encode(as_texts(texts[:_MOST_TEXTS], ""))
    held = np.cumsum([len(each) * model.token_vectors.width for each in tokens])
    return max(int(np.searchsorted(held, _MOST_NUMBERS, side="right")), 1)


def _norms(weights: Any) -> Floats:
    """The lengths of the rows of a sparse matrix."""
    return np.asarray(np.sqrt(weights.multiply(weights).sum(axis=1)))[:, 0]


def _units(vectors: Floats) -> Floats:
    """Vectors ``[count, width]`` scaled to length 1."""
    return np.asarray(
        vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _SMALLEST)
    )
