"""The benchmark metrics in percent, computed by the usual libraries.

Accuracy, F1 and Matthews' correlation come from scikit-learn, Pearson's and Spearman's from scipy.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from sparsebert.extras import need_extra

ByClass = dict[str, dict[str, float]]
"""Maps a label to ``precision``, ``recall`` and ``f1`` in percent, and ``rows`` that have it.

For questions that may have no answer, maps HasAns and NoAns to their metrics and number of rows.
"""


@dataclass(frozen=True)
class Scores:
    """Values in percent by metric name, and notes on scores that may mislead.

    ``by_class`` has the classes that some row has or was given.
    """

    values: dict[str, float]
    notes: list[str] = field(default_factory=list)
    by_class: ByClass = field(default_factory=dict)

    def and_values(self, values: dict[str, float]) -> Scores:
        """A copy with further values, by name."""
        return replace(self, values={**self.values, **values})


def classification_scores(
    metrics: Sequence[str],
    predicted: npt.NDArray[np.integer],
    expected: npt.NDArray[np.integer],
    labels: Sequence[str],
    positive: str | None = None,
) -> Scores:
    """Score indices into ``labels``, ``[rows]`` each.

    ``f1`` is that of the label ``positive``; without one, it is the mean over the classes (macro)
    that some row has or was given, as in scikit-learn. ``matthews`` is 0 if all predictions are the
    same.
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
        notes.append("every row got the same label: the model does not distinguish them.")
    absent = [repr(name) for index, name in enumerate(labels) if index not in expected]
    if absent:
        shown = ", ".join(absent[:10]) + (", ..." if len(absent) > 10 else "")
        notes.append(
            f"no row has the label{'s' if len(absent) > 1 else ''} {shown}: the scores say nothing "
            f"about {'them' if len(absent) > 1 else 'it'}."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, on absent classes; the note is clearer
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

    Predictions are ranked after rounding (`without_rounding_noise`): otherwise the order of equal
    predictions would depend on engine, batch and threads. A correlation with a constant is
    undefined; it is reported as 0 with a note. Values that are not finite are treated the same way,
    and so are predictions that differ only by rounding noise.
    """
    need_extra("scoring a task", "scipy")
    from scipy.stats import pearsonr, spearmanr

    guess, target = np.asarray(predicted, np.float64), np.asarray(expected, np.float64)
    ranked = without_rounding_noise(guess)
    known = {
        "pearson": lambda: pearsonr(guess, target),  # barely affected by rounding noise
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
        warnings.simplefilter("ignore")  # scipy's, on nearly constant values; checked below instead
        found = {name: 100 * float(known[name]().statistic) for name in metrics}
    if not all(np.isfinite(value) for value in found.values()):
        return _undefined(metrics, "the values hardly differ")
    return Scores(found)


def without_rounding_noise(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """``values`` of any shape, rounded to 18 of float32's 24 significant bits.

    Two computations of the same answer in float32 (with another instruction set, number of threads
    or batch) agree to about 1e-6 of its value, 16 units in the last place. The step here is 64
    units, 4 to 8 millionths of a value: values that differ only by that noise usually become equal,
    and real differences remain. The step scales with each value, because the predictions of a
    regression may have any magnitude.
    """
    mantissa, exponent = np.frexp(np.asarray(values, np.float64))
    rounded: npt.NDArray[np.float64] = np.ldexp(np.round(np.ldexp(mantissa, 18)), exponent - 18)
    return rounded


def _undefined(metrics: Sequence[str], why: str) -> Scores:
    note = f"{why}, so the correlation is undefined and reported as 0."
    return Scores(dict.fromkeys(metrics, 0.0), [note])
