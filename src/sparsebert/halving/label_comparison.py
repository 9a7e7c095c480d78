"""Two models that label tokens, or give a text several labels: what both give, and what changed.

Each row has three counts: the labels that both sides give, those of the first and those of the
second. The F1 of any selection of rows follows from their sums, which is what a bootstrap needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsebert.evaluation.entities import entities
from sparsebert.evaluation.scoring import Judged
from sparsebert.halving.comparison import Changed, bootstrap
from sparsebert.inference.labelling import TaggedToken, sigmoid
from sparsebert.tasks.examples import Examples
from sparsebert.tasks.labels import OUTSIDE
from sparsebert.tasks.table import Kind, Task

Ints = npt.NDArray[np.int64]
_MARGIN = 12  # differing tokens that are shown per text


def f1_interval(dense: Judged, halved: Judged, task: Task) -> tuple[float, float]:
    """The 95 % interval of the halved model's F1 less the dense one's, in points.

    F1 is that of the entities of all rows together, or of their labels. If the labels have no "O",
    each word's label counts, so that F1 is the share of right ones.
    """
    counts = [
        np.array(
            [
                _counts(_answers(right, task), _answers(given, task))
                for right, given in zip(each.expected, each.predicted, strict=True)
            ],
            np.int64,
        )
        for each in (dense, halved)
    ]

    def difference(rows: Ints) -> float:
        first, second = (shared_labels(each[rows].sum(axis=0)) for each in counts)
        return second - first

    return bootstrap(len(counts[0]), difference)


def _answers(row: Sequence[str], task: Task) -> set[Any]:
    """What counts in a row: its entities, or its labels, or the label of each word by its place."""
    if task.kind is Kind.LABEL_SETS:
        return set(row)
    return entities(row, task.labels) if OUTSIDE in task.labels else set(enumerate(row))


def _counts(first: set[Any], second: set[Any]) -> list[int]:
    return [len(first & second), len(first), len(second)]


def changed_rows(examples: Examples, dense: Judged, halved: Judged) -> list[Changed]:
    """The rows whose labels differ, those with the largest share of differing labels first."""
    several = examples.task.kind is Kind.LABEL_SETS
    found = []
    for row, (mine, other) in enumerate(zip(dense.predicted, halved.predicted, strict=True)):
        if list(mine) == list(other):
            continue
        text = examples.texts[row]
        if several:
            distance = 1 - shared_labels(np.array(_counts(set(mine), set(other)))) / 100
            shown = [", ".join(each) or "none" for each in (mine, other)]
        else:
            differ = [place for place, tag in enumerate(mine) if tag != other[place]]
            distance = len(differ) / len(mine)
            spans = examples.words[row].spans
            words = {place: text[slice(*spans[place])] for place in differ[:_MARGIN]}
            shown = [
                " ".join(f"{word}/{each[place]}" for place, word in words.items())
                for each in (mine, other)
            ]
        found.append(Changed(text, shown[0], shown[1], distance))
    return sorted(found, key=lambda each: -each.distance)


def label_counts(dense: Any, halved: Any, *, tokens: bool, outside: int | None) -> Ints:
    """How many labels both models, the dense model and the halved model give each text.

    Logits are ``[texts, labels]``, or with ``tokens`` a list of ``[tokens, labels]``, whose first
    and last token are the tokenizer's own; the label ``outside`` does not count. int64
    ``[texts, 3]``.
    """

    def given(logits: Any) -> set[Any]:
        if not tokens:
            return set(np.flatnonzero(np.asarray(logits) > 0).tolist())
        best = np.asarray(logits)[1:-1].argmax(axis=1).tolist()
        return {(place, label) for place, label in enumerate(best) if label != outside}

    rows = zip(dense, halved, strict=True)
    return np.array([_counts(given(mine), given(other)) for mine, other in rows], np.int64)


def shared_labels(counts: Ints) -> float:
    """F1 in percent of ``[shared, dense, halved]``; 100 if neither model gives any label."""
    given = int(counts[1] + counts[2])
    return 200.0 * int(counts[0]) / given if given else 100.0


def changed_labels(
    texts: Sequence[str], dense: Any, halved: Any, labels: Sequence[str]
) -> list[Changed]:
    """The texts whose labels differ, those whose scores changed most first."""
    shares = [np.asarray(sigmoid(np.asarray(each)), np.float64) for each in (dense, halved)]
    distance = np.abs(shares[0] - shares[1]).max(axis=1)
    differ = ((shares[0] > 0.5) != (shares[1] > 0.5)).any(axis=1)

    def say(which: int, row: int) -> str:
        given: list[int] = np.flatnonzero(shares[which][row] > 0.5).tolist()
        return ", ".join(labels[label] for label in given) or "none"

    order: list[int] = np.argsort(-distance, kind="stable").tolist()
    return [
        Changed(texts[row], say(0, row), say(1, row), float(distance[row]))
        for row in order
        if differ[row]
    ]


def changed_tokens(
    texts: Sequence[str],
    dense: Sequence[list[TaggedToken]],
    halved: Sequence[list[TaggedToken]],
) -> list[Changed]:
    """The texts whose tokens' labels differ, those with the largest share of such tokens first."""
    found = []
    for text, mine, other in zip(texts, dense, halved, strict=True):
        pairs = [(a, b) for a, b in zip(mine, other, strict=True) if a["label"] != b["label"]]
        if pairs:
            first, second = (
                " ".join(f"{each[side]['text']}/{each[side]['label']}" for each in pairs[:_MARGIN])
                for side in (0, 1)
            )
            found.append(Changed(text, first, second, len(pairs) / len(mine)))
    return sorted(found, key=lambda each: -each.distance)
