"""Embeddings of any kind, for searching documents and for comparing two models.

| kind | similarity of query and document | similarity of two models on a document |
|---|---|---|
| dense | cosine | cosine |
| sparse (SPLADE) | scalar product, or what the folder says | cosine |
| tokens (ColBERT) | MaxSim of their vectors | mean cosine over its tokens |
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sparsebert.checkpoint.embedding_kinds import EmbeddingKind
from sparsebert.checkpoint.model_settings import read_similarity
from sparsebert.checkpoint.multi_vector import Task
from sparsebert.errors import DataError
from sparsebert.evaluation.retrieval import Floats, Ints
from sparsebert.inference.texts import as_texts
from sparsebert.inference.tokenizing import TruncationWarning

if TYPE_CHECKING:
    from sparsebert.inference import Model

_MOST_TEXTS = 1000  # compared by token vectors: a million scores take about 20 seconds
_MOST_NUMBERS = 1 << 26  # numbers in all their token vectors: 256 MB per model
_MOST_SEARCHED = 1 << 28  # the same for documents that are searched: 1 GB per model
_SMALLEST = 1e-12  # smallest divisor


class Embeddings(Protocol):
    """A model's embeddings of some queries and documents."""

    def similarities(self, part: slice = slice(None)) -> Floats:
        """Similarity of some queries to all documents, ``[queries, documents]``."""

    def cosines(self, other: Any, count: int) -> Floats:
        """Similarity of this and another model's embeddings of the first documents, ``[count]``."""


class DenseEmbeddings:
    """One vector per text; queries and documents are embedded alike."""

    def __init__(
        self, model: Model, queries: Sequence[str], documents: Sequence[str], batch_size: int
    ) -> None:
        def matrix(texts: Sequence[str]) -> Floats:
            return units(model.embed(texts, batch_size=batch_size))

        self._documents = matrix(documents)
        same = _begin(documents, queries)
        self._queries = self._documents[: len(queries)] if same else matrix(queries)

    def similarities(self, part: slice = slice(None)) -> Floats:
        """See `Embeddings`."""
        return np.asarray(self._queries[part] @ self._documents.T)

    def cosines(self, other: DenseEmbeddings, count: int) -> Floats:
        """See `Embeddings`."""
        mine, others = self._documents[:count], other._documents[:count]
        return np.asarray(np.einsum("ij,ij->i", mine, others))


class SparseEmbeddings:
    """A weight for each token of the vocabulary, in sparse matrices ``[texts, vocabulary]``."""

    def __init__(
        self, model: Model, queries: Sequence[str], documents: Sequence[str], batch_size: int
    ) -> None:
        from scipy.sparse import csr_matrix

        def matrix(texts: Sequence[str], task: Task) -> Any:
            found = model.embed_sparse(texts, task=task, batch_size=batch_size)
            starts = np.concatenate([[0], np.cumsum([len(each.indices) for each in found])])
            values = np.concatenate([each.values for each in found]).astype(np.float64)
            indices = np.concatenate([each.indices for each in found])
            shape = (len(texts), model.config.vocab_size)
            return csr_matrix((values, indices, starts), shape=shape)

        self._documents = matrix(documents, "document")
        alike = all(of("query") == of("document") for of in (model.prompts.of, model.sparse_route))
        own = self._documents[: len(queries)]
        same = alike and _begin(documents, queries)
        self._queries = own if same else matrix(queries, "query")
        self._cosine = read_similarity(model.path, usual="dot") == "cosine"

    def similarities(self, part: slice = slice(None)) -> Floats:
        """See `Embeddings`."""
        asked = self._queries[part]
        found = (asked @ self._documents.T).toarray()
        if self._cosine:
            found /= np.maximum(np.outer(_norms(asked), _norms(self._documents)), _SMALLEST)
        return np.asarray(found)

    def cosines(self, other: SparseEmbeddings, count: int) -> Floats:
        """See `Embeddings`. Two embeddings without any weights count as equal."""
        mine, others = self._documents[:count], other._documents[:count]
        products = np.asarray(mine.multiply(others).sum(axis=1))[:, 0]
        norms = _norms(mine), _norms(others)
        found = products / np.maximum(norms[0] * norms[1], _SMALLEST)
        return np.asarray(np.where((norms[0] == 0) & (norms[1] == 0), 1.0, found))


class TokenEmbeddings:
    """A vector for each token of a text."""

    def __init__(
        self, model: Model, queries: Sequence[str], documents: Sequence[str], batch_size: int
    ) -> None:
        assert model.token_vectors is not None
        with warnings.catch_warnings():  # these texts may exceed the shorter limit for queries
            warnings.simplefilter("ignore", TruncationWarning)
            self._queries = model.embed_tokens(queries, task="query", batch_size=batch_size)
        self._documents = model.embed_tokens(documents, batch_size=batch_size)
        self._score = model.token_vectors.scores

    def similarities(self, part: slice = slice(None)) -> Floats:
        """See `Embeddings`."""
        scores = [self._score(each, self._documents) for each in self._queries[part]]
        return np.asarray(scores, np.float64)

    def cosines(self, other: TokenEmbeddings, count: int) -> Floats:
        """See `Embeddings`. Documents without any kept token count as equal."""
        found = np.ones(count)
        for place, (mine, others) in enumerate(
            zip(self._documents[:count], other._documents[:count], strict=True)
        ):
            if len(mine):
                both = (units(each) for each in (mine, others))
                found[place] = np.einsum("ij,ij->i", *both).mean()
        return found


_KINDS: dict[EmbeddingKind, Any] = {
    "dense": DenseEmbeddings,
    "sparse": SparseEmbeddings,
    "tokens": TokenEmbeddings,
}


def embeddings(
    model: Model,
    queries: Sequence[str],
    documents: Sequence[str],
    kind: EmbeddingKind,
    *,
    batch_size: int = 32,
) -> Embeddings:
    """The model's embeddings of the texts."""
    made: Embeddings = _KINDS[kind](model, queries, documents, batch_size)
    return made


def that_fit(model: Model, texts: Sequence[str], kind: EmbeddingKind) -> int:
    """How many of the first texts can be compared in memory: all, if each has only one vector."""
    if kind != "tokens":
        return len(texts)
    held = np.cumsum(_numbers(model, texts[:_MOST_TEXTS]))
    return max(int(np.searchsorted(held, _MOST_NUMBERS, side="right")), 1)


def check_searched(model: Model, documents: Sequence[str], kind: EmbeddingKind) -> None:
    """DataError for more documents than can be held in memory for a search."""
    if kind == "tokens" and int(_numbers(model, documents).sum()) > _MOST_SEARCHED:
        raise DataError(
            f"the {len(documents):,} documents of the data are too many to hold a vector for each "
            "of their tokens in memory: use fewer."
        )


def _numbers(model: Model, texts: Sequence[str]) -> Ints:
    """The number of values in each text's token vectors."""
    assert model.token_vectors is not None
    with warnings.catch_warnings():  # embedding the texts will give the same warning
        warnings.simplefilter("ignore", TruncationWarning)
        tokens = model.tokenizer.encode(as_texts(texts, ""))
    return np.array([len(each) for each in tokens]) * model.token_vectors.width


def _begin(documents: Sequence[str], queries: Sequence[str]) -> bool:
    """Whether the first documents are the same as the queries."""
    return list(documents[: len(queries)]) == list(queries)


def _norms(weights: Any) -> Floats:
    """The lengths of the rows of a sparse matrix."""
    return np.asarray(np.sqrt(weights.multiply(weights).sum(axis=1)))[:, 0]


def units(vectors: Any) -> Floats:
    """Vectors ``[count, width]`` scaled to length 1, in float64."""
    found = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.maximum(lengths, _SMALLEST))
