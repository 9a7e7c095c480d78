"""Two models on the same rows: how certain the difference of their scores is, and what changed.

Intervals are percentiles of the bootstrap over rows (Efron 1979): rows are resampled with
replacement, the same ones for both models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsebert.evaluation.scoring import Judged
from sparsebert.evaluation.squad import row_scores
from sparsebert.inference.labelling import softmax
from sparsebert.tasks.examples import Examples
from sparsebert.tasks.table import Kind
from sparsebert.tasks.texts import Text

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NEIGHBOURS = 10
_RESAMPLES = 1000
_NO_ANSWER = "(no answer)"
_SEED = 20_240_505


@dataclass(frozen=True)
class Changed:
    """A text (both parts of a pair) and each model's answer."""

    text: str
    dense: str
    halved: str
    distance: float


@dataclass(frozen=True)
class Compared:
    """Both models' answers to the rows of a split.

    ``answers`` are the dense and the halved model's: float ``[rows, labels]`` each, or texts.
    ``right`` is the score of each row, ``[rows]`` for each model, if the metric is a mean over
    rows. ``correlate`` is what the dense model predicts, what the halved one predicts, and what was
    expected, ``[rows]`` each, if the metric is a correlation.
    """

    answers: tuple[Any, Any]
    right: tuple[Floats, Floats] | None
    correlate: tuple[Floats, Floats, Floats] | None

    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the halved model's score minus the dense one's, in points."""
        if self.right is not None:
            more = self.right[1] - self.right[0]
            return bootstrap(len(more), lambda rows: float(more[rows].mean()))
        if self.correlate is None:
            return None
        dense, halved, expected = self.correlate
        return correlation_interval(dense, halved, expected)


def compared(examples: Examples, judged: Sequence[Judged], logits: Sequence[Any]) -> Compared:
    """``judged`` and ``logits`` are those of both models on the rows; see `PreparedSplit.judge`."""
    task, expected = examples.task, judged[0].expected
    predicted = [each.predicted for each in judged]
    if task.kind is Kind.QUESTION:
        scores = [
            row_scores(task.main_metric, each, examples.answers, unanswerable=task.unanswerable)
            for each in predicted
        ]
        return Compared((predicted[0], predicted[1]), (scores[0], scores[1]), None)
    dense, halved = (np.asarray(each, np.float64) for each in logits)
    if task.kind is Kind.REGRESSION:
        values = [np.asarray(each, np.float64) for each in predicted]
        return Compared((dense, halved), None, (values[0], values[1], expected))
    names = [np.array(each, object) for each in (*predicted, expected)]
    if task.main_metric == "accuracy":
        hits = [100.0 * (each == names[-1]) for each in names[:-1]]
        return Compared((dense, halved), (hits[0], hits[1]), None)
    if task.main_metric == "matthews" and len(task.labels) == 2:  # which is a correlation
        numbers = [(each == task.labels[1]).astype(np.float64) for each in names]
        return Compared((dense, halved), None, (numbers[0], numbers[1], numbers[2]))
    return Compared((dense, halved), None, None)


def bootstrap(count: int, statistic: Callable[[Ints], float]) -> tuple[float, float]:
    """The 95 % percentile interval of ``statistic``, a function of row numbers below ``count``."""
    random = np.random.RandomState(_SEED)
    found = [statistic(random.randint(count, size=count)) for _ in range(_RESAMPLES)]
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def correlation_interval(dense: Floats, halved: Floats, expected: Floats) -> tuple[float, float]:
    """The 95 % interval of the difference of two Pearson correlations, in points.

    Both are correlations with ``expected``; all three are ``[rows]``. For Spearman's, pass ranks.
    """

    def difference(rows: Ints) -> float:
        columns = np.stack([dense[rows], halved[rows], expected[rows]])
        if not np.all(columns.std(axis=1)):
            return 0.0
        between = np.asarray(np.corrcoef(columns))
        return float(100 * (between[1, 2] - between[0, 2]))

    return bootstrap(len(expected), difference)


def changed_answers(rows: Compared, texts: Sequence[Text], labels: Sequence[str]) -> list[Changed]:
    """The texts whose answers changed most, those with a different best label first."""
    dense, halved = rows.answers
    if not isinstance(dense, np.ndarray):
        assert rows.right is not None
        lost = rows.right[0] - rows.right[1]
        order = [
            row for row in np.argsort(-lost, kind="stable").tolist() if dense[row] != halved[row]
        ]
        return [
            Changed(
                _question(texts[row]),
                dense[row] or _NO_ANSWER,
                halved[row] or _NO_ANSWER,
                float(lost[row]),
            )
            for row in order
        ]
    if dense.shape[1] == 1:
        distance = np.abs(halved - dense)[:, 0]
        return [
            Changed(
                _shown(texts[row]),
                f"{dense[row, 0]:.2f}",
                f"{halved[row, 0]:.2f}",
                float(distance[row]),
            )
            for row in np.argsort(-distance, kind="stable").tolist()
        ]
    shares = [np.asarray(softmax(each.astype(np.float32)), np.float64) for each in (dense, halved)]
    distance = np.abs(shares[1] - shares[0]).max(axis=1)
    best = [each.argmax(axis=1) for each in shares]

    def say(which: int, row: int) -> str:
        label = best[which][row]
        return f"{labels[label]} {shares[which][row, label]:.2f}"

    return [
        Changed(_shown(texts[row]), say(0, row), say(1, row), float(distance[row]))
        for row in np.lexsort((-distance, best[0] == best[1])).tolist()
    ]


def neighbours(similar: Floats, count: int = NEIGHBOURS) -> Ints:
    """The nearest other texts of each of the first ones, by their similarities ``[rows, texts]``.

    ``[rows, count]``; ties go to the first, and there are fewer if there are not enough texts.
    """
    apart = similar.copy()
    np.fill_diagonal(apart, -np.inf)
    count = min(count, similar.shape[1] - 1)
    return np.argsort(-apart, axis=1, kind="stable")[:, :count]


def _shown(text: Text) -> str:
    return text if isinstance(text, str) else " / ".join(text)


def _question(text: Text) -> str:
    return text if isinstance(text, str) else text[0]
