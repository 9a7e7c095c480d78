"""How well documents are found: nDCG, reciprocal rank and recall, in percent.

With g_i the relevance of the document at rank i (0 for one that is not looked for),

    DCG@k = sum_{i=1..k} g_i / log2(i + 1)      nDCG@k = DCG@k / DCG@k of the best possible ranking

(Järvelin & Kekäläinen 2002, with the gain itself in the numerator as trec_eval and scikit-learn's
``ndcg_score`` have it). MRR@k is 1 / (rank of the first document looked for), 0 if it is not among
the first k, and recall@k the share of those looked for that is; all are means over the queries. A
document that is as near to the query as one that is looked for counts as the nearer one, so that
embeddings which tell nothing apart score nothing. A document that is the query itself is passed
over, as BEIR does (Thakur et al. 2021).
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
"""Of some of the queries to all documents, float64 ``[queries, documents]``."""

MOST_FOUND = 100  # documents that are listed for a query
_CELLS = 1 << 24  # similarities held at a time: 128 MB


@dataclass(frozen=True)
class Search:
    """``found`` is int64 ``[queries, documents found]``, the nearest first.

    ``relevant`` says of each query how relevant which documents are, by index.
    """

    queries: Sequence[str]
    documents: Sequence[str]
    relevant: Sequence[Mapping[int, float]]
    found: Ints

    def in_words(self) -> tuple[list[dict[str, float]], list[list[str]]]:
        """``relevant`` and ``found`` with the documents themselves."""
        relevant = [
            {self.documents[index]: value for index, value in each.items()}
            for each in self.relevant
        ]
        return relevant, [[self.documents[index] for index in row] for row in self.found.tolist()]

    def gains(self) -> Floats:
        """The relevance of what was found, float64 like ``found``."""
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
    """Find the documents that are most similar to each query, but for those ``passed_over``."""
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
    """Scalar products of vectors, ``[texts, width]``."""
    return lambda part: np.asarray(queries[part] @ documents.T)


def _nearest(scores: Floats, relevant: Mapping[int, float], count: int) -> Ints:
    """Indices of the ``count`` largest; of equal ones those that are not looked for come first."""
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
    """What each query scores, float64 ``[queries]``, from 0 to 1."""
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
        raise ValueError(f"'{metric}' is not a metric of retrieval")
    best = np.zeros((len(gains), k))
    for row, each in enumerate(found.relevant):
        ideal = sorted(each.values(), reverse=True)[:k]
        best[row, : len(ideal)] = ideal
    discount = 1 / np.log2(np.arange(2, k + 2))
    return np.asarray((gains @ discount[: gains.shape[1]]) / (best @ discount))
