"""Scores of several labels a row, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sparsebert.evaluation.label_sets import label_set_scores

METRICS = ("micro_f1", "macro_f1", "average_precision")
RIGHT = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]], np.float32)
LIKELY = np.array([[0.9, 0.2, 0.1], [0.4, 0.8, 0.1], [0.6, 0.1, 0.1], [0.3, 0.5, 0.2]])


def test_values_by_hand() -> None:
    found = label_set_scores(METRICS, LIKELY, RIGHT, ("a", "b", "c"), 0.5)
    # a: given rows 0 and 2, right 0 and 1. b: given rows 1 and 3, both right. c: neither.
    assert found.by_class["a"] == pytest.approx(
        {"precision": 50, "recall": 50, "f1": 50, "rows": 2}
    )
    assert found.by_class["b"]["f1"] == 100
    assert "c" not in found.by_class
    assert found.values["micro_f1"] == pytest.approx(100 * 3 / 4)
    assert found.values["macro_f1"] == pytest.approx(75)
    # a, by likelihood: right, wrong, right: (1/1 + 2/3) / 2; b: both first.
    assert found.values["average_precision"] == pytest.approx(100 * ((1 + 2 / 3) / 2 + 1) / 2)
    assert found.notes == ["no row has 'c': the scores say nothing about such labels."]


def test_the_threshold_decides_and_may_leave_none() -> None:
    low = label_set_scores(METRICS, LIKELY, RIGHT, ("a", "b", "c"), 0.4)
    assert low.by_class["a"] == pytest.approx(
        {"precision": 200 / 3, "recall": 100, "f1": 80, "rows": 2}
    )
    none = label_set_scores(METRICS, LIKELY, RIGHT, ("a", "b", "c"), 0.95)
    assert none.values["micro_f1"] == 0
    assert "no label reaches the threshold of 0.95" in none.notes[-1]
