"""Retrieval metrics: nDCG, reciprocal rank and recall, in percent.

With g_i the relevance of the document at rank i (0 if it is irrelevant),

    DCG@k = sum_{i=1..k} g_i / log2(i + 1)      nDCG@k = DCG@k / DCG@k of the best possible ranking

(Järvelin & Kekäläinen 2002, with the gain itself in the numerator, as in trec_eval and
scikit-learn's ``ndcg_score``). MRR@k is 1 / (rank of the first relevant document), or 0 if that is
not among the first k. Recall@k is the share of relevant documents that are among the first k. All
are means over the queries. On ties, irrelevant documents rank before relevant ones, so that
embeddings which do not distinguish documents score as badly as possible. A document that is the
query itself is skipped, as in BEIR (Thakur et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparsebert.evaluation.metrics import Scores, without_rounding_noise

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

Similarities = Callable[[slice], Floats]
"""Returns the similarities of a slice of the queries to all documents, float64."""

MOST_FOUND = 100  # documents listed for each query
_CELLS = 1 << 24  # similarities held at a time: 128 MB


@dataclass(frozen=True)
class Search:
    """Search results: ``found`` is int64 ``[queries, documents found]``, the most similar first.

    ``relevant`` maps, for each query, the indices of relevant documents to their relevance.
    """

    queries: Sequence[str]
    documents: Sequence[str]
    relevant: Sequence[Mapping[int, float]]
    found: Ints

    def in_words(self) -> tuple[list[dict[str, float]], list[list[str]]]:
        """``relevant`` and ``found`` with documents in place of their indices."""
        relevant = [
            {self.documents[index]: value for index, value in each.items()}
            for each in self.relevant
        ]
        return relevant, [[self.documents[index] for index in row] for row in self.found.tolist()]

    def gains(self) -> Floats:
        """The relevance of the documents found, float64, in the shape of ``found``."""
        rows = [
            [each.get(index, 0.0) for index in row]
            for each, row in zip(self.relevant, self.found.tolist(), strict=True)
        ]
        return np.array(rows, np.float64)


def search(
    queries: Sequence[str],
    documents: Sequence[str],
    relevant: Sequence[Mapping[int, float]],
    passed_over: Sequence[Collection[int]],
    similarities: Similarities,
) -> Search:
    """Find the documents most similar to each query, except those ``passed_over``."""
    count = min(MOST_FOUND, len(documents))
    found = np.empty((len(queries), count), np.int64)
    step = max(_CELLS // len(documents), 1)
    for start in range(0, len(queries), step):
        near = without_rounding_noise(similarities(slice(start, start + step)))
        for offset, scores in enumerate(near):
            scores[list(passed_over[start + offset])] = -np.inf
            found[start + offset] = _nearest(scores, relevant[start + offset], count)
    return Search(queries, documents, relevant, found)


def products(queries: Floats, documents: Floats) -> Similarities:
    """Scalar products of vectors ``[texts, width]``."""
    return lambda part: np.asarray(queries[part] @ documents.T)


def _nearest(scores: Floats, relevant: Mapping[int, float], count: int) -> Ints:
    """Indices of the ``count`` largest scores; on ties, irrelevant documents come first."""
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    among = np.flatnonzero(scores >= least)
    looked_for = np.isin(among, list(relevant))
    return np.asarray(among[np.lexsort((among, looked_for, -scores[among]))][:count])


def retrieval_scores(metrics: Sequence[str], found: Search) -> Scores:
    """The means over all queries, by name (``ndcg@10``, ``mrr@10``, ``recall@1``, ...)."""
    values = {name: 100 * float(query_scores(name, found).mean()) for name in metrics}
    note = f"{len(found.queries):,} queries in a corpus of {len(found.documents):,} documents."
    return Scores(values, [note])


def query_scores(metric: str, found: Search) -> Floats:
    """The score of each query, float64 ``[queries]``, from 0 to 1."""
    kind, _, depth = metric.partition("@")
    k = int(depth)
    gains = found.gains()[:, :k]
    if kind == "mrr":
        hits = gains > 0
        first = hits.argmax(axis=1)
        return np.where(hits.any(axis=1), 1.0 / (first + 1), 0.0)
    if kind == "recall":
        wanted = np.array([len(each) for each in found.relevant], np.float64)
        return np.asarray((gains > 0).sum(axis=1) / wanted)
    if kind != "ndcg":
        raise ValueError(f"'{metric}' is not a retrieval metric")
    best = np.zeros((len(gains), k))
    for row, each in enumerate(found.relevant):
        ideal = sorted(each.values(), reverse=True)[:k]
        best[row, : len(ideal)] = ideal
    discount = 1 / np.log2(np.arange(2, k + 2))
    return np.asarray((gains @ discount[: gains.shape[1]]) / (best @ discount))
