"""A handful of texts through the dense model and the packed one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparsebert.demo.result import ExampleAnswer, Prediction
from sparsebert.inference import Model, load
from sparsebert.tasks import Task, load_split

# Our own, so that no one's review is quoted; some plain, some that say it sideways.
OPINIONS = (
    "A warm, funny and moving film that earns every one of its tears.",
    "Two hours of my life that I will never get back.",
    "The plot makes no sense, and yet I could not look away.",
    "It wants to be clever and manages to be loud.",
    "Not the masterpiece it was sold as, but a thoroughly enjoyable evening.",
    "The best thing about it is that it ends.",
)
_SHOWN = 6


def answer_examples(
    dense: Path, packed: Path, task: Task, data: Path | None, threads: int | None
) -> list[ExampleAnswer]:
    """What both models say about opinions of films, or about the first rows of another task."""
    texts = _texts(task, data)
    answers = [_predictions(load(folder, threads=threads), texts) for folder in (dense, packed)]
    return [
        ExampleAnswer(text if isinstance(text, str) else " / ".join(text), *pair)
        for text, pair in zip(texts, zip(*answers, strict=True), strict=True)
    ]


def _texts(task: Task, data: Path | None) -> Sequence[str | tuple[str, str]]:
    if task.labels == ("negative", "positive"):
        return OPINIONS
    rows = load_split(task, data, task.validation_splits[0], max_rows=_SHOWN)
    return rows.texts if rows.pairs is None else list(zip(rows.texts, rows.pairs, strict=True))


def _predictions(model: Model, texts: Sequence[str | tuple[str, str]]) -> list[Prediction]:
    best = (found[0] for found in model.classify(texts, top_k=1))
    return [Prediction(answer["label"], answer["score"]) for answer in best]
