"""What a halved model keeps of the dense model's embeddings: neighbours, or a score on the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsebert.checkpoint.embedding_kinds import EmbeddingKind
from sparsebert.evaluation.embedding_scores import find_documents_by_engine, pair_cosines
from sparsebert.evaluation.embeddings import embeddings, that_fit
from sparsebert.evaluation.metrics import Scores, regression_scores, without_rounding_noise
from sparsebert.evaluation.retrieval import query_scores, retrieval_scores
from sparsebert.evaluation.scored_rows import scored_examples
from sparsebert.halving.comparison import (
    Changed,
    Floats,
    Ints,
    bootstrap,
    correlation_interval,
    neighbours,
)
from sparsebert.halving.judgement import OF_SCORE, SHOWN, Judgement
from sparsebert.halving.subject import EMBEDDINGS, Subject
from sparsebert.inference import Model, load
from sparsebert.progress import Progress
from sparsebert.tasks.examples import Examples
from sparsebert.tasks.table import Kind
from sparsebert.tasks.texts import Text, single_texts, texts_of

# Points. An equally near neighbour may take another's place at no cost to a score, but a search
# should find the nearest one among the first ten.
_OF_NEIGHBOURS = 1.0
MOST_TEXTS = 2000  # that are compared: a similarity matrix of 32 MB
_BESIDE = 200  # texts on which further kinds of embeddings are compared
_SEED = 20_240_505


def judge_embedding(
    subject: Subject,
    texts: Sequence[Text],
    held: Path | Sequence[Text],
    dense: Any,
    halved: Any,
    *,
    threads: int | None,
    progress: Progress,
) -> Judgement:
    """Compare embeddings of the ``held`` texts, or score the subject's task on that data folder.

    The figure that counts is the share of texts whose nearest neighbour by the dense model is among
    the ten nearest by the halved one (1-recall@10 of nearest-neighbour search), searched among all
    ``texts`` (up to `MOST_TEXTS` of them); of a folder with scored pairs, or queries and documents,
    it is the metric of that task, and its texts are compared. Also reported are how many of the ten
    neighbours both models share, and the same for the model's other kinds of embeddings, if any.
    """
    examples = None
    if isinstance(held, Path):
        assert subject.task is not None
        examples = scored_examples(subject.checkpoint.path, subject.task, held, None)[0]
        held = texts_of(examples)
    queries = list(dict.fromkeys(single_texts(held)))[:MOST_TEXTS]
    asked = set(queries)
    others = [text for text in dict.fromkeys(single_texts(texts)) if text not in asked]
    order = np.random.RandomState(_SEED).permutation(len(others))[: MOST_TEXTS - len(queries)]
    chosen = queries + [others[row] for row in np.sort(order)]
    models = (load(dense, threads=threads), load(halved, threads=threads))
    first, *further = subject.kinds
    found = _compared_embeddings(models, chosen, len(queries), first, progress)
    more = found.figures("")
    for kind in further:
        beside = _compared_embeddings(models, queries[:_BESIDE], _BESIDE, kind, progress)
        more |= beside.figures(f"{EMBEDDINGS[kind]}, ")
    worst = np.argsort(found.cosines)[:SHOWN]
    changed = [
        Changed(chosen[row], "", f"cosine {found.cosines[row]:.3f}", 1 - float(found.cosines[row]))
        for row in worst
    ]
    if examples is not None:
        return _judge_embedding_task(subject, examples, models, more, changed, progress)
    first_found = 100.0 * (found.near[1] == found.near[0][:, :1]).any(axis=1)
    return Judgement(
        f"recall of the nearest neighbour in {found.near[0].shape[1]}",
        True,
        100.0,
        float(first_found.mean()),
        len(first_found),
        _OF_NEIGHBOURS,
        bootstrap(len(first_found), lambda rows: float(first_found[rows].mean()) - 100),
        more,
        changed,
    )


@dataclass(frozen=True)
class _ComparedEmbeddings:
    """``cosines`` of both models' embeddings, ``[queries]``, and what is ``near`` by each model,
    ``[queries, 10]``.
    """

    cosines: Floats
    near: tuple[Ints, Ints]

    def figures(self, kind: str) -> dict[str, float]:
        """The figures by name, each name beginning with ``kind``."""
        dense, halved = self.near
        shared = [len(set(a) & set(b)) / max(len(a), 1) for a, b in zip(dense, halved, strict=True)]
        return {
            f"{kind}cosine to the dense model, mean": float(self.cosines.mean()),
            f"{kind}cosine to the dense model, lowest": float(self.cosines.min()),
            f"{kind}{dense.shape[1]} nearest neighbours shared, %": 100 * float(np.mean(shared)),
        }


def _compared_embeddings(
    models: tuple[Model, Model],
    texts: Sequence[str],
    queries: int,
    kind: EmbeddingKind,
    progress: Progress,
) -> _ComparedEmbeddings:
    """Compare one kind of embeddings: the first ``queries`` texts are searched among all texts."""
    texts = texts[: that_fit(models[0], texts, kind)]
    queries = min(queries, len(texts))
    label = f"comparing {EMBEDDINGS[kind]}"
    progress(label, 0, 2)
    dense = embeddings(models[0], texts[:queries], texts, kind)
    progress(label, 1, 2)
    halved = embeddings(models[1], texts[:queries], texts, kind)
    near = (neighbours(dense.similarities()), neighbours(halved.similarities()))
    progress(label, 2, 2)
    return _ComparedEmbeddings(dense.cosines(halved, queries), near)


def _judge_embedding_task(
    subject: Subject,
    examples: Examples,
    models: Sequence[Model],
    more: dict[str, float],
    changed: list[Changed],
    progress: Progress,
) -> Judgement:
    """The task's metric, as `evaluate` computes it: Spearman of scored pairs' cosines, or nDCG."""
    from scipy.stats import rankdata

    task = examples.task
    scores: list[Scores]
    if task.kind is Kind.RETRIEVAL:
        found = [
            find_documents_by_engine(examples, each, subject.kinds[0], progress=progress)
            for each in models
        ]
        scores = [retrieval_scores(task.metrics, each) for each in found]
        dense, halved = (100 * query_scores(task.main_metric, each) for each in found)
        gained = halved - dense
        rows = len(gained)
        interval = bootstrap(rows, lambda chosen: float(gained[chosen].mean()))
    else:
        expected = examples.labels.astype(np.float64)
        cosines = [pair_cosines(examples, each.embed, progress) for each in models]
        scores = [regression_scores(task.metrics, each, expected) for each in cosines]
        ranks = [rankdata(without_rounding_noise(each)) for each in (*cosines, expected)]
        rows, interval = len(examples), correlation_interval(*ranks)
    more = {
        **{
            f"{task.name}, {name}, {which}": score
            for which, each in zip(("dense", "halved"), scores, strict=True)
            for name, score in each.values.items()
        },
        **more,
    }
    first, second = (each.values[task.main_metric] for each in scores)
    return Judgement(
        task.main_metric, False, first, second, rows, OF_SCORE, interval, more, changed
    )
