"""Metrics against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("scipy")

from sparsebert.evaluation.metrics import classification_scores, regression_scores
from sparsebert.evaluation.results import by_class_lines, table_row

# 3 true positives, 1 false positive, 2 false negatives, 4 true negatives.
EXPECTED = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0])
TWO = ("0", "1")
PREDICTED = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])


def test_accuracy_f1_and_matthews_of_two_labels() -> None:
    scores = classification_scores(("accuracy", "f1", "matthews"), PREDICTED, EXPECTED, TWO, "1")
    assert scores.values["accuracy"] == pytest.approx(70.0)  # 7 of 10
    assert scores.values["f1"] == pytest.approx(100 * 6 / 9)  # 2 TP / (2 TP + FP + FN)
    matthews = (3 * 4 - 1 * 2) / math.sqrt((3 + 1) * (3 + 2) * (4 + 1) * (4 + 2))
    assert scores.values["matthews"] == pytest.approx(100 * matthews)
    assert scores.notes == []


def test_f1_is_that_of_the_positive_label_also_where_it_is_rare() -> None:
    scores = classification_scores(("f1",), np.array([0, 0, 1]), np.array([0, 0, 0]), TWO, "1")
    assert scores.values == {"f1": 0.0}


def test_f1_of_three_labels_is_the_mean_over_those_that_are_there() -> None:
    expected, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    scores = classification_scores(("f1",), predicted, expected, ("a", "b", "c"))
    assert scores.values["f1"] == pytest.approx(100 * (2 / 3 + 4 / 5) / 2)
    assert scores.notes == ["no row has the label 'c': the scores say nothing about it."]


def test_f1_by_class_is_scikit_learns_report() -> None:
    from sklearn.metrics import classification_report, f1_score

    random = np.random.default_rng(3)
    names = ("a", "b", "c", "d", "e")
    expected = random.choice([0, 1, 3], size=60)
    predicted = np.where(random.random(60) < 0.6, expected, random.choice([0, 1, 2], size=60))
    scores = classification_scores(("f1",), predicted, expected, names)
    report = classification_report(expected, predicted, output_dict=True, zero_division=0)
    assert scores.values["f1"] == pytest.approx(100 * report["macro avg"]["f1-score"])
    assert list(scores.by_class) == ["a", "b", "c", "d"]  # no row has c, and some were given it
    for place, name in enumerate("abcd"):
        theirs, ours = report[str(place)], scores.by_class[name]
        assert ours["rows"] == theirs["support"]
        for metric in ("precision", "recall"):
            assert ours[metric] == pytest.approx(100 * theirs[metric])
        assert ours["f1"] == pytest.approx(100 * theirs["f1-score"])
    assert scores.notes == ["no row has the labels 'c', 'e': the scores say nothing about them."]
    of_b = classification_scores(("f1",), predicted, expected, names, "b")
    assert of_b.values["f1"] == pytest.approx(100 * f1_score(expected == 1, predicted == 1))


@pytest.mark.parametrize("classes", [3, 12])
def test_a_perfect_model_is_perfect_where_a_class_has_no_row(classes: int) -> None:
    expected = np.arange(classes - 1)
    names = [f"class {place}" for place in range(classes)]
    assert classification_scores(("f1",), expected, expected, names).values == {"f1": 100.0}


def test_always_answering_the_frequent_class_is_not_good() -> None:
    expected = np.array([1] * 187 + [0] * 13)  # 6.5 % fraud
    always = np.ones(200, np.int64)
    names = ("fraud", "legit")
    macro = classification_scores(("f1",), always, expected, names)
    assert macro.values["f1"] == pytest.approx(100 * (2 * 187 / (2 * 187 + 13)) / 2)
    assert classification_scores(("f1",), always, expected, names, "fraud").values["f1"] == 0.0
    assert macro.by_class["fraud"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "rows": 13}


def test_classes_as_lines() -> None:
    each = {"precision": 50.0, "recall": 100.0, "rows": 7}
    classes = {f"class {place}": {**each, "f1": float(place)} for place in range(25)}
    lines = by_class_lines({"validation": classes})
    assert lines[0] == "validation  precision  recall     F1    rows"
    assert lines[1] == "class 0          50.0   100.0    0.0       7"
    assert (len(lines), lines[-1]) == (22, "(the 20 lowest of 25 classes)")


@pytest.mark.parametrize("label", [0, 1])
def test_one_label_for_everything_is_told_and_does_not_crash(label: int) -> None:
    predicted = np.full(10, label)
    scores = classification_scores(("accuracy", "f1", "matthews"), predicted, EXPECTED, TWO)
    assert scores.values["accuracy"] == pytest.approx(50.0)
    assert scores.values["matthews"] == 0.0
    assert scores.notes == ["every row got the same label: the model does not distinguish them."]


def test_rows_of_one_label_all_met_are_right_and_say_nothing_of_the_other() -> None:
    everything = np.ones(4, np.int64)
    scores = classification_scores(("accuracy", "matthews"), everything, everything, TWO)
    assert scores.values["accuracy"] == 100.0
    assert scores.notes == ["no row has the label '0': the scores say nothing about it."]


def test_pearson_and_spearman() -> None:
    guess, target = np.array([1.0, 2.0, 3.0, 10.0]), np.array([1.0, 3.0, 2.0, 4.0])
    scores = regression_scores(("pearson", "spearman"), guess, target)
    # Deviations from the means: (-3, -2, -1, 6) and (-1.5, .5, -.5, 1.5).
    pearson = (4.5 - 1 + 0.5 + 9) / math.sqrt((9 + 4 + 1 + 36) * (2.25 + 0.25 + 0.25 + 2.25))
    assert scores.values["pearson"] == pytest.approx(100 * pearson)
    # Ranks differ by (0, -1, 1, 0): 1 - 6 * 2 / (4 * 15).
    assert scores.values["spearman"] == pytest.approx(80.0)


@pytest.mark.parametrize(
    ("guess", "why"),
    [
        ([2.0, 2.0, 2.0], "all predictions are the same"),
        ([1.0, float("nan"), 2.0], "some predictions are not finite numbers"),
    ],
)
def test_an_undefined_correlation_is_zero_with_a_note(guess: list[float], why: str) -> None:
    scores = regression_scores(("pearson", "spearman"), np.array(guess), np.array([0.0, 1.0, 2.0]))
    assert scores.values == {"pearson": 0.0, "spearman": 0.0}
    assert scores.notes == [f"{why}, so the correlation is undefined and reported as 0."]


@pytest.mark.parametrize("noise", [2.2e-16, 2.4e-7])  # of float64 cosines, of float32 logits
@pytest.mark.parametrize("size", [1.0, 3e-4, -700.0])
def test_rounding_noise_is_not_ranked(size: float, noise: float) -> None:
    target = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    for signs in ([0, 0, 0], [-1, 0, 1], [1, 0, -1], [0, 1, -1]):
        tied = size * (1 + noise * np.array(signs))
        guess = np.array([0.5 * size, 0.99 * size, *tied])
        scores = regression_scores(("pearson", "spearman"), guess, target)
        # Ranks 1, 2, 4, 4, 4: their deviations (-2, -1, 1, 1, 1) against (-2, -1, 0, 1, 2).
        spearman = 8 / math.sqrt(8 * 10)
        assert scores.values["spearman"] == pytest.approx(math.copysign(100 * spearman, size))


def test_pearson_is_of_every_digit() -> None:
    """Of predictions that lie close together, rounding would be a part of what they differ by."""
    guess = 1 + 1e-5 * np.random.default_rng(2).normal(size=50)
    target = np.arange(50.0)
    expected = 100 * np.corrcoef(guess, target)[0, 1]
    found = regression_scores(("pearson",), guess, target).values["pearson"]
    assert found == pytest.approx(expected, abs=1e-6)


def test_close_values_are_ranked() -> None:
    guess, target = np.array([0.9, 0.90001, 0.90002, 0.90003]), np.arange(4.0)
    assert regression_scores(("spearman",), guess, target).values["spearman"] == 100


def test_predictions_that_differ_by_rounding_noise_are_the_same(
    recwarn: pytest.WarningsRecorder,
) -> None:
    for guess in ([1.0, 1.0 + 2e-16, 1.0], [0.3, 0.3 + 2e-8, 0.3 - 3e-8]):
        scores = regression_scores(("pearson", "spearman"), np.array(guess), np.arange(3.0))
        assert scores.values == {"pearson": 0.0, "spearman": 0.0}
        assert scores.notes[0].startswith("all predictions are the same")
    assert not recwarn.list


def test_constant_labels_and_a_single_row_are_undefined_too() -> None:
    same = regression_scores(("pearson",), np.array([1.0, 2.0]), np.array([3.0, 3.0]))
    assert same.values == {"pearson": 0.0}
    assert same.notes[0].startswith("all labels are the same")
    assert regression_scores(("pearson",), np.array([1.0]), np.array([3.0])).values["pearson"] == 0


def test_rows_of_the_table() -> None:
    qqp = {"validation": {"accuracy": 90.84, "f1": 87.55}}
    assert table_row("QQP", qqp) == "QQP (accuracy/F1): 90.8/87.5"
    mnli = {"validation_matched": {"accuracy": 83.3}, "validation_mismatched": {"accuracy": 83.9}}
    assert table_row("MNLI-m/mm", mnli) == "MNLI-m/mm (accuracy): 83.3/83.9"
    half = {"validation_mismatched": {"accuracy": 83.9}}
    assert table_row("MNLI-m/mm", half) == "MNLI (validation_mismatched) (accuracy): 83.9"
