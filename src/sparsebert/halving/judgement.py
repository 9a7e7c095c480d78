"""What a halved model keeps: its score beside the dense one's, or how far the two agree.

Both run on the engine: the dense model in fp32, the halved one as it is served, packed in int8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import Head
from sparsebert.evaluation import evaluate
from sparsebert.evaluation.evaluator import match_labels
from sparsebert.evaluation.results import main_score
from sparsebert.halving.subject import Subject
from sparsebert.inference import Model, load
from sparsebert.progress import Progress
from sparsebert.tasks.custom import find_task
from sparsebert.tasks.examples import load_split
from sparsebert.tasks.texts import Text, single_texts

Floats = npt.NDArray[np.float64]

NEIGHBOURS = 10
MOST_TEXTS = 2000  # embedded to be compared: a similarity matrix of 32 MB
_SHOWN = 12
_COLUMNS = ("text_column", "pair_column", "label_column")
_RESAMPLES = 1000
_SEED = 20_240_505


@dataclass(frozen=True)
class Changed:
    """A text (of a pair, both parts) and what either model makes of it."""

    text: str
    dense: str
    halved: str
    distance: float


@dataclass(frozen=True)
class Judgement:
    """What was kept.

    ``metric`` is what is compared, in percent: ``dense`` and ``halved`` score it, and ``drop`` is
    their difference in points, with a 95 % bootstrap interval over the ``rows`` where each row has
    a score of its own. Against its own answers (``agreement``) a dense model has 100. ``more`` are
    further figures by name.
    """

    metric: str
    agreement: bool
    dense: float
    halved: float
    rows: int
    interval: tuple[float, float] | None = None
    more: dict[str, float] = field(default_factory=dict)
    changed: list[Changed] = field(default_factory=list)

    @property
    def drop(self) -> float:
        """Points lost; negative where the halved model is better."""
        return self.dense - self.halved

    @property
    def kept(self) -> float:
        """The halved model's score in percent of the dense one's."""
        return 100 * self.halved / self.dense if self.dense else 100.0

    def sentence(self) -> str:
        """One line for people."""
        span = (
            "" if self.interval is None else f", {self.interval[0]:+.1f} to {self.interval[1]:+.1f}"
        )
        if self.agreement:
            return f"{self.metric}: {self.halved:.1f} % with the dense model ({self.rows:,} texts)"
        return (
            f"{self.metric}: {self.halved:.1f}, dense {self.dense:.1f} "
            f"(kept {self.kept:.1f} %; difference {-self.drop:+.1f}{span}; {self.rows:,} rows)"
        )

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {**asdict(self), "drop": self.drop, "kept": self.kept}


def judge_task(
    subject: Subject,
    task: str,
    data: Any,
    dense: Any,
    halved: Any,
    *,
    threads: int | None,
    progress: Progress,
) -> Judgement:
    """Score both models on the validation split, or splits, of ``data``."""
    options = _columns(subject) if subject.labelled else {}
    scores = [
        evaluate(model, task=task, data=data, threads=threads, progress=progress, **options)
        for model in (dense, halved)
    ]
    found = find_task(task, data, options=subject.columns if subject.labelled else None)
    values = [main_score(found, each.scores) for each in scores]
    rows = sum(scores[0].rows.values())
    split = load_split(found, data, found.validation_splits[0])
    texts: list[Text] = (
        list(split.texts)
        if split.pairs is None
        else list(zip(split.texts, split.pairs, strict=True))
    )
    models = [load(model, threads=threads) for model in (dense, halved)]
    interval = None
    if models[0].config.head is Head.SEQUENCE:
        logits = [model.logits(texts).astype(np.float64) for model in models]
        if found.main_metric == "accuracy" and models[0].config.labels == models[1].config.labels:
            order, _ = match_labels(found, models[0].config, str(dense))
            labels = split.labels.astype(np.int64)
            truth = labels if order is None else order[labels]
            right = [each.argmax(axis=1) == truth for each in logits]
            interval = bootstrap(100 * (right[1].astype(float) - right[0].astype(float)))
        changed = _changed_answers(models, texts, logits)
    else:
        changed = _changed_spans(models, texts)
    return Judgement(
        "agreement"
        if not subject.labelled and found.main_metric == "accuracy"
        else found.main_metric,
        not subject.labelled,
        values[0],
        values[1],
        rows,
        interval if subject.labelled else None,
        {
            f"{split}, {metric}, {name}": score
            for name, each in zip(("dense", "halved"), scores, strict=True)
            for split, metrics in each.scores.items()
            for metric, score in metrics.items()
        },
        changed,
    )


def judge_embedding(
    subject: Subject,
    texts: Sequence[Text],
    held: Sequence[Text],
    dense: Any,
    halved: Any,
    *,
    threads: int | None,
    progress: Progress,
) -> Judgement:
    """Compare embeddings of the ``held`` texts, and score pairs where there are such.

    The figure that counts is the agreement of their ten nearest neighbours by cosine among all
    ``texts`` (up to `MOST_TEXTS` of them); where the data has scored pairs it is Spearman's
    correlation of the cosines with the scores.
    """
    queries = list(dict.fromkeys(single_texts(held)))[:MOST_TEXTS]
    asked = set(queries)
    others = [text for text in dict.fromkeys(single_texts(texts)) if text not in asked]
    order = np.random.RandomState(_SEED).permutation(len(others))[: MOST_TEXTS - len(queries)]
    chosen = queries + [others[row] for row in np.sort(order)]
    models = [load(model, threads=threads) for model in (dense, halved)]
    vectors = []
    for place, model in enumerate(models):
        progress("comparing embeddings", place, len(models))
        found = model.embed(chosen).astype(np.float64)
        vectors.append(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12))
    progress("comparing embeddings", len(models), len(models))
    cosines = np.einsum("ij,ij->i", *(each[: len(queries)] for each in vectors))
    near = [neighbours(each)[: len(queries)] for each in vectors]
    shared = np.array([len(set(a) & set(b)) / len(a) for a, b in zip(*near, strict=True)])
    more = {
        "cosine to the dense model, mean": float(cosines.mean()),
        "cosine to the dense model, lowest": float(cosines.min()),
        f"{len(near[0][0])} nearest neighbours shared, %": float(100 * shared.mean()),
    }
    worst = np.argsort(cosines)[:_SHOWN]
    changed = [
        Changed(chosen[row], "", f"cosine {cosines[row]:.3f}", float(1 - cosines[row]))
        for row in worst
    ]
    if subject.pairs and subject.task is None:
        scores = [
            evaluate(
                model,
                task="custom",
                data=subject.data,
                zero_shot=True,
                threads=threads,
                progress=progress,
                **_columns(subject),
            )
            for model in (dense, halved)
        ]
        values = [next(iter(each.scores.values()))["spearman"] for each in scores]
        rows = sum(scores[0].rows.values())
        return Judgement("spearman", False, values[0], values[1], rows, None, more, changed)
    metric = f"agreement of the {len(near[0][0])} nearest neighbours"
    return Judgement(
        metric, True, 100.0, float(100 * shared.mean()), len(queries), None, more, changed
    )


def neighbours(vectors: Floats, count: int = NEIGHBOURS) -> npt.NDArray[np.int64]:
    """Of each row of ``[texts, hidden]``, unit vectors, the nearest others: ``[texts, count]``.

    Of equally near ones the first; ``count`` is smaller where there are fewer others.
    """
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    count = min(count, len(vectors) - 1)
    return np.argsort(-similar, axis=1, kind="stable")[:, :count]


def bootstrap(differences: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of paired differences (Efron 1979)."""
    random = np.random.RandomState(_SEED)
    rows = random.randint(len(differences), size=(_RESAMPLES, len(differences)))
    low, high = np.percentile(differences[rows].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _columns(subject: Subject) -> dict[str, Any]:
    given = subject.columns.given()
    return {name: given[name] for name in given if name in _COLUMNS}


def _changed_answers(
    models: Sequence[Model], texts: Sequence[Text], logits: Sequence[Floats]
) -> list[Changed]:
    """The texts whose scores moved most, those with another best label first."""
    labels = models[0].config.labels
    if len(labels) == 1:
        distance = np.abs(logits[1] - logits[0])[:, 0]
        say: Callable[[int, int], str] = lambda which, row: f"{logits[which][row, 0]:.2f}"  # noqa: E731
        order = np.argsort(-distance)
    else:
        shares = [softmax(each) for each in logits]
        distance = np.abs(shares[1] - shares[0]).max(axis=1)
        best = [each.argmax(axis=1) for each in shares]
        order = np.lexsort((-distance, best[0] == best[1]))

        def say(which: int, row: int) -> str:
            label = best[which][row]
            return f"{labels[label]} {shares[which][row, label]:.2f}"

    return [
        Changed(_shown(texts[row]), say(0, row), say(1, row), float(distance[row]))
        for row in order[:_SHOWN]
    ]


def _changed_spans(models: Sequence[Model], texts: Sequence[Text]) -> list[Changed]:
    asked = [text for text in texts if not isinstance(text, str)][:200]
    found = [
        model.answer([question for question, _ in asked], [context for _, context in asked])
        for model in models
    ]
    return [
        Changed(question, dense["text"], halved["text"], abs(dense["score"] - halved["score"]))
        for (question, _), dense, halved in zip(asked, *found, strict=True)
        if dense["text"] != halved["text"]
    ][:_SHOWN]


def softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Floats = shifted / shifted.sum(axis=-1, keepdims=True)
    return shares


def _shown(text: Text) -> str:
    return text if isinstance(text, str) else " / ".join(text)
