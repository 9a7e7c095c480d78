"""Scores of embedding models: cosines of scored pairs, and documents found for queries.

No head is involved: each text is embedded by itself, after the folder's prompt for its kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import Prompts
from sparsebert.checkpoint.embedding_kinds import EmbeddingKind
from sparsebert.checkpoint.model_settings import read_similarity
from sparsebert.evaluation.embeddings import check_searched, embeddings, units
from sparsebert.evaluation.metrics import Scores, regression_scores
from sparsebert.evaluation.retrieval import Search, products, retrieval_scores, search
from sparsebert.evaluation.user_metric import UserMetric
from sparsebert.progress import Progress, silent
from sparsebert.tasks.examples import Examples
from sparsebert.tasks.table import Kind

if TYPE_CHECKING:
    from sparsebert.inference import Model

Embeddings = npt.NDArray[np.float32]
_CHUNK = 512  # texts embedded between two progress reports


class Embed(Protocol):
    """A model that embeds texts."""

    def __call__(self, texts: Sequence[str], *, prompt: str | None = None) -> Embeddings:
        """Embed texts after ``prompt`` (default: the folder's own); float32 ``[texts, width]``."""


@dataclass(frozen=True)
class EmbeddedSplit:
    """A `ScoredSplit` for embedding models: rows that can be scored any number of times."""

    examples: Examples
    prompts: Prompts
    similarity: str = "cosine"
    metric: UserMetric | None = None

    def score(self, embed: Embed, order: Any = None, progress: Progress | None = None) -> Scores:
        """The task's metrics; ``order`` is ignored, as there are no labels."""
        return embedding_scores(
            self.examples,
            embed,
            self.prompts,
            similarity=self.similarity,
            metric=self.metric,
            progress=progress,
        )


def embedding_scores(
    examples: Examples,
    embed: Embed,
    prompts: Prompts,
    *,
    similarity: str = "cosine",
    metric: UserMetric | None = None,
    progress: Progress | None = None,
) -> Scores:
    """The task's metrics; pairs and regressions are scored by the cosines of their texts.

    ``similarity`` ("cosine" or "dot") ranks documents in retrieval. A user's ``metric`` gets scores
    and cosines or, for each query, the relevance of its documents and those found, best first.
    """
    task = examples.task
    if task.kind is not Kind.RETRIEVAL:
        cosines = pair_cosines(examples, embed, progress)
        expected = examples.labels.astype(np.float64)
        scores = regression_scores(task.metrics, cosines, expected)
        return scores if metric is None else scores.and_values(metric.score(expected, cosines))
    found = find_documents(examples, embed, prompts, similarity=similarity, progress=progress)
    return search_scores(examples, found, metric)


def search_scores(examples: Examples, found: Search, metric: UserMetric | None) -> Scores:
    """The metrics of a retrieval, and the user's."""
    scores = retrieval_scores(examples.task.metrics, found)
    return scores if metric is None else scores.and_values(metric.score(*found.in_words()))


def find_documents(
    examples: Examples,
    embed: Embed,
    prompts: Prompts,
    *,
    similarity: str = "cosine",
    progress: Progress | None = None,
) -> Search:
    """Search the documents of all rows and of the corpus for each distinct query."""
    wanted = looked_for(examples)
    report = progress or silent
    label = f"embedding {examples.task.name} {examples.split}"
    unit = similarity == "cosine"
    vectors = [
        _embedded(embed, texts, prompt, f"{label}: {what}", report, unit=unit)
        for what, texts, prompt in (
            ("queries", wanted.queries, prompts.query),
            ("documents", wanted.documents, prompts.document),
        )
    ]
    return search(*wanted, products(*vectors))


def find_documents_by_engine(
    examples: Examples,
    model: Model,
    kind: EmbeddingKind,
    *,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Search:
    """`find_documents` with embeddings of any kind, compared as the model's folder says."""
    if kind == "dense":
        return find_documents(
            examples,
            partial(model.embed, batch_size=batch_size),
            model.prompts,
            similarity=read_similarity(model.path),
            progress=progress,
        )
    wanted = looked_for(examples)
    check_searched(model, wanted.documents, kind)
    made = embeddings(model, wanted.queries, wanted.documents, kind, batch_size=batch_size)
    return search(*wanted, made.similarities)


class LookedFor(NamedTuple):
    """Distinct queries and documents, and for each query the relevance of documents by index.

    ``passed_over`` has, for each query, the document that is the query itself, unless that document
    is relevant.
    """

    queries: list[str]
    documents: list[str]
    relevant: list[dict[int, float]]
    passed_over: list[set[int]]


def looked_for(examples: Examples) -> LookedFor:
    """The queries of all rows with their relevant documents, and all documents to search."""
    assert examples.pairs is not None
    queries = list(dict.fromkeys(examples.texts))
    negatives = (text for row in examples.negatives for text in row)
    documents = list(dict.fromkeys([*examples.pairs, *negatives, *examples.corpus]))
    where = {text: index for index, text in enumerate(documents)}
    relevant: dict[str, dict[int, float]] = {query: {} for query in queries}
    for query, document, value in zip(examples.texts, examples.pairs, examples.labels, strict=True):
        known = relevant[query]
        known[where[document]] = max(float(value), known.get(where[document], 0.0))
    itself = {query: where[text] for query, text in examples.themselves.items()}
    passed_over = [
        {itself[query]} - relevant[query].keys() if query in itself else set() for query in queries
    ]
    return LookedFor(queries, documents, [relevant[query] for query in queries], passed_over)


def pair_cosines(
    examples: Examples, embed: Embed, progress: Progress | None = None
) -> npt.NDArray[np.float64]:
    """The cosine of each pair's embeddings, float64 ``[rows]``."""
    assert examples.pairs is not None
    # Many texts occur in several pairs.
    distinct = list(dict.fromkeys([*examples.texts, *examples.pairs]))
    index = {text: number for number, text in enumerate(distinct)}
    label = f"embedding {examples.task.name} {examples.split}"
    vectors = _embedded(embed, distinct, None, label, progress or silent, unit=True)
    left = vectors[[index[text] for text in examples.texts]]
    right = vectors[[index[text] for text in examples.pairs]]
    cosines: npt.NDArray[np.float64] = np.einsum("ij,ij->i", left, right)
    return cosines


def _embedded(
    embed: Embed,
    texts: Sequence[str],
    prompt: str | None,
    label: str,
    progress: Progress,
    *,
    unit: bool,
) -> npt.NDArray[np.float64]:
    """Embeddings in the order of ``texts``, scaled to length 1 if ``unit``."""
    # Longest first, so that batches have texts of similar length.
    order = sorted(range(len(texts)), key=lambda row: (-len(texts[row]), texts[row]))
    vectors = np.zeros((0, 0))
    for start in range(0, len(order), _CHUNK):
        progress(label, start, len(order))
        rows = order[start : start + _CHUNK]
        made = embed([texts[row] for row in rows], prompt=prompt).astype(np.float64)
        if not start:  # once, as those of a large corpus fill much of the memory
            vectors = np.empty((len(texts), made.shape[1]))
        vectors[rows] = units(made) if unit else made
    progress(label, len(order), len(order))
    return vectors
