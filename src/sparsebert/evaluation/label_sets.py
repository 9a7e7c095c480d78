"""Scores for several labels per row: F1 overall and by label, and average precision."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sparsebert.evaluation.metrics import ByClass, Scores
from sparsebert.extras import need_extra


def label_set_scores(
    metrics: Sequence[str],
    probabilities: npt.NDArray[np.floating],
    expected: npt.NDArray[np.floating],
    labels: Sequence[str],
    threshold: float,
) -> Scores:
    """Score ``probabilities`` ``[rows, labels]`` against zeros and ones of the same shape.

    A row is given the labels whose probability is at least ``threshold``. ``micro_f1`` counts all
    labels of all rows together, ``macro_f1`` is the mean over the labels that some row has or was
    given, and ``average_precision``, which needs no threshold, the mean over those that some row
    has.
    """
    need_extra("scoring a task", "sklearn")
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support

    right = np.asarray(expected) > 0
    given = given_labels(probabilities, threshold)
    there = np.flatnonzero((right | given).any(axis=0))
    positive = np.flatnonzero(right.any(axis=0))
    values = dict.fromkeys(("micro_f1", "macro_f1", "average_precision"), 0.0)
    by_class: ByClass = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, on labels without a row, which score 0
        if there.size:
            micro = precision_recall_fscore_support(right, given, average="micro", zero_division=0)
            table = precision_recall_fscore_support(right, given, average=None, zero_division=0)
            values["micro_f1"] = 100 * float(micro[2])
            values["macro_f1"] = 100 * float(np.mean(table[2][there]))
            by_class = {
                labels[index]: {
                    "precision": 100 * float(table[0][index]),
                    "recall": 100 * float(table[1][index]),
                    "f1": 100 * float(table[2][index]),
                    "rows": int(table[3][index]),
                }
                for index in there.tolist()
            }
        if positive.size:
            each = [average_precision_score(right[:, i], probabilities[:, i]) for i in positive]
            values["average_precision"] = 100 * float(np.mean(each))
    notes = []
    absent = [repr(name) for index, name in enumerate(labels) if index not in positive]
    if absent:
        shown = ", ".join(absent[:10]) + (", ..." if len(absent) > 10 else "")
        notes.append(f"no row has {shown}: the scores say nothing about such labels.")
    if right.any() and not given.any():
        notes.append(f"no label reaches the threshold of {threshold:g}: no row was given a label.")
    return Scores({name: values[name] for name in metrics}, notes, by_class)


def given_labels(
    probabilities: npt.NDArray[np.floating], threshold: float
) -> npt.NDArray[np.bool_]:
    """Which labels reach the threshold, bool ``[rows, labels]``."""
    given: npt.NDArray[np.bool_] = probabilities >= threshold
    return given
