"""The benchmark metrics, in percent, by the libraries that define them.

Accuracy, F1 and Matthews' correlation come from scikit-learn, Pearson's and Spearman's from scipy,
SQuAD's exact match and F1 (lower-cased, without articles and punctuation, best over the accepted
answers) from torchmetrics.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsebert.extras import need_extra
from sparsebert.tasks.squad import Answers

ByClass = dict[str, dict[str, float]]
"""Label to ``precision``, ``recall`` and ``f1`` in percent, and how many ``rows`` have it.

Of questions that may have no answer, those with one (HasAns) and without (NoAns) to the metrics.
"""


@dataclass(frozen=True)
class Scores:
    """Metric name to percent, and notes on scores that do not mean what they seem to.

    ``by_class`` has the classes of a classification that some row has or was given.
    """

    values: dict[str, float]
    notes: list[str] = field(default_factory=list)
    by_class: ByClass = field(default_factory=dict)

    def and_values(self, values: dict[str, float]) -> Scores:
        """With further values, by name."""
        return replace(self, values={**self.values, **values})


def classification_scores(
    metrics: Sequence[str],
    predicted: npt.NDArray[np.integer],
    expected: npt.NDArray[np.integer],
    labels: Sequence[str],
    positive: str | None = None,
) -> Scores:
    """Score indices into ``labels``, ``[rows]`` each.

    ``f1`` is that of the label ``positive``, or without one the mean over the classes (macro) that
    some row has or was given, as scikit-learn has it. ``matthews`` is 0 where all predictions are
    the same.
    """
    need_extra("scoring a task", "sklearn")
    from sklearn.metrics import (
        accuracy_score,
        f1_score,
        matthews_corrcoef,
        precision_recall_fscore_support,
    )

    def f1() -> float:
        if positive is None:
            return float(f1_score(expected, predicted, average="macro", zero_division=0))
        index = labels.index(positive)
        return float(f1_score(expected == index, predicted == index, zero_division=0))

    known: dict[str, Callable[[], float]] = {
        "accuracy": lambda: float(accuracy_score(expected, predicted)),
        "f1": f1,
        "matthews": lambda: float(matthews_corrcoef(expected, predicted)),
    }
    notes = []
    if np.all(predicted == predicted[0]) and not np.all(expected == expected[0]):
        notes.append("every row got the same label: the model tells nothing apart.")
    absent = [repr(name) for index, name in enumerate(labels) if index not in expected]
    if absent:
        shown = ", ".join(absent[:10]) + (", ..." if len(absent) > 10 else "")
        notes.append(
            f"no row has the label{'s' if len(absent) > 1 else ''} {shown}: the scores say nothing "
            f"of {'them' if len(absent) > 1 else 'it'}."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn on one-sided rows; the note says it better
        values = {name: 100 * known[name]() for name in metrics}
        there = np.union1d(expected, predicted)
        table = precision_recall_fscore_support(expected, predicted, labels=there, zero_division=0)
    by_class: ByClass = {
        labels[index]: {
            "precision": 100 * float(precision),
            "recall": 100 * float(recall),
            "f1": 100 * float(score),
            "rows": int(rows),
        }
        for index, precision, recall, score, rows in zip(there, *table, strict=True)
    }
    return Scores(values, notes, by_class)


def regression_scores(
    metrics: Sequence[str],
    predicted: npt.NDArray[np.floating],
    expected: npt.NDArray[np.floating],
) -> Scores:
    """Correlate predictions with targets, ``[rows]`` each.

    Ranks are those of five significant digits (`without_rounding_noise`): ranked to the last bit,
    equal predictions would stand in an order that engine, batch and threads decide. A correlation
    with a constant is undefined; it is reported as 0 with a note. Predictions that are not finite
    count as constant, and so do those that differ by rounding noise alone.
    """
    need_extra("scoring a task", "scipy")
    from scipy.stats import pearsonr, spearmanr

    guess, target = np.asarray(predicted, np.float64), np.asarray(expected, np.float64)
    ranked = without_rounding_noise(guess)
    known = {
        "pearson": lambda: pearsonr(guess, target),  # to which noise is no more than noise
        "spearman": lambda: spearmanr(ranked, target),
    }
    for what, values in (("predictions", ranked), ("labels", target)):
        if not np.all(np.isfinite(values)):
            why = f"some {what} are not finite numbers"
        elif len(values) < 2 or np.all(values == values[0]):
            why = f"all {what} are the same"
        else:
            continue
        return _undefined(metrics, why)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy on values that hardly differ; checked here instead
        found = {name: 100 * float(known[name]().statistic) for name in metrics}
    if not all(np.isfinite(value) for value in found.values()):
        return _undefined(metrics, "the values hardly differ")
    return Scores(found)


def without_rounding_noise(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """``values`` of any shape with 18 of the 24 significant bits that float32 has.

    Two ways of computing one answer in float32 (another instruction set, number of threads, or
    texts in the batch) agree to about 1e-6 of it, 16 units in the last place. A step is 64 units
    here, 2 to 4 millionths of a value: what is equal but for that noise comes out equal, and
    values that a model does tell apart stay apart. The step goes with each value's own size, for
    the predictions of a regression may be of any.
    """
    mantissa, exponent = np.frexp(np.asarray(values, np.float64))
    rounded: npt.NDArray[np.float64] = np.ldexp(np.round(np.ldexp(mantissa, 18)), exponent - 18)
    return rounded


def _undefined(metrics: Sequence[str], why: str) -> Scores:
    note = f"{why}, so a correlation is undefined; it is given as 0."
    return Scores(dict.fromkeys(metrics, 0.0), [note])


def answer_scores(
    metrics: Sequence[str], predicted: Sequence[str], expected: Sequence[Answers]
) -> Scores:
    """Score answers in words against each question's accepted ones, "" where it has none."""
    need_extra("scoring SQuAD", "torchmetrics", "torch")
    from torchmetrics.functional.text import squad

    guesses = [{"id": str(row), "prediction_text": text} for row, text in enumerate(predicted)]
    targets: list[dict[str, Any]] = [
        {
            "id": str(row),
            "answers": {
                "text": list(answers.texts) or [""],
                "answer_start": list(answers.starts) or [0],
            },
        }
        for row, answers in enumerate(expected)
    ]
    found = squad(guesses, targets)
    return Scores({name: float(found[name]) for name in metrics})
