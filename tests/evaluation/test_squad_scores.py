"""Exact match and F1 of answers against the functions of SQuAD's scripts, copied from them."""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from sparsebert.evaluation.squad import answer_scores, row_scores
from sparsebert.evaluation.unanswerable import unanswerable_scores
from sparsebert.tasks.squad import Answers

METRICS = ("exact_match", "f1")
PIECES = [
    "the",
    "A.",
    "an",
    "cat",
    "Dog",
    "--",
    "Ünï",
    "don't",
    "1,000",
    "\u00a0x",
    "a\tb",
    "“q”",
    "",
]


def has(*texts: str) -> Answers:
    return Answers(texts, (0,) * len(texts))


def test_values_by_hand() -> None:
    expected = [
        has("Denver Broncos", "The Denver Broncos!"),
        has("in the year 1066", "1066"),
        has("Santa Clara, California"),
        has("nothing of it"),
    ]
    predicted = ["the denver broncos", "year 1066", "Santa Clara", ""]
    scores = answer_scores(METRICS, predicted, expected)
    # Articles, case and punctuation do not count: the first is exact.
    assert scores.values["exact_match"] == pytest.approx(25.0)
    # Second: 2 common words, 2 given, 3 wanted (the article is gone): 4/5, more than against
    # "1066". Third: 2 of 2 given, 3 wanted: 4/5.
    assert scores.values["f1"] == pytest.approx(100 * (1 + 4 / 5 + 4 / 5 + 0) / 4)


def normalize_answer(s: str) -> str:
    """Of evaluate-v1.1.py, and the same in evaluate-v2.0.py."""
    without = "".join(ch for ch in s.lower() if ch not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", without).split())


def official_v1(prediction: str, accepted: Sequence[str]) -> tuple[float, float]:
    """``exact_match_score`` and ``f1_score``, the best of each over the accepted answers."""

    def f1_score(ground_truth: str) -> float:
        prediction_tokens = normalize_answer(prediction).split()
        ground_truth_tokens = normalize_answer(ground_truth).split()
        common = Counter(prediction_tokens) & Counter(ground_truth_tokens)
        num_same = sum(common.values())
        if num_same == 0:
            return 0
        precision = 1.0 * num_same / len(prediction_tokens)
        recall = 1.0 * num_same / len(ground_truth_tokens)
        return (2 * precision * recall) / (precision + recall)

    exact = max(normalize_answer(prediction) == normalize_answer(each) for each in accepted)
    return float(exact), max(map(f1_score, accepted))


def official_v2(a_pred: str, accepted: Sequence[str]) -> tuple[float, float]:
    """``get_raw_scores`` of one question."""

    def get_tokens(s: str) -> list[str]:
        return normalize_answer(s).split() if s else []

    def compute_f1(a_gold: str) -> float:
        gold_toks, pred_toks = get_tokens(a_gold), get_tokens(a_pred)
        num_same = sum((Counter(gold_toks) & Counter(pred_toks)).values())
        if len(gold_toks) == 0 or len(pred_toks) == 0:
            return int(gold_toks == pred_toks)
        if num_same == 0:
            return 0
        precision = 1.0 * num_same / len(pred_toks)
        recall = 1.0 * num_same / len(gold_toks)
        return (2 * precision * recall) / (precision + recall)

    gold_answers = [each for each in accepted if normalize_answer(each)] or [""]
    exact = max(int(normalize_answer(each) == normalize_answer(a_pred)) for each in gold_answers)
    return float(exact), max(map(compute_f1, gold_answers))


def test_each_question_scores_as_in_the_official_scripts() -> None:
    choice = random.Random(0)

    def text() -> str:
        return " ".join(choice.choices(PIECES, k=choice.randint(1, 3)))

    for _ in range(2000):
        predicted, answers = text(), has(*(text() for _ in range(choice.randint(0, 3))))
        found = [row_scores(name, [predicted], [answers], unanswerable=True) for name in METRICS]
        assert np.ravel(found) / 100 == pytest.approx(official_v2(predicted, answers.texts))
        if answers.texts:
            found = [row_scores(name, [predicted], [answers]) for name in METRICS]
            assert np.ravel(found) / 100 == pytest.approx(official_v1(predicted, answers.texts))


def test_no_answer_is_wrong_where_one_of_the_answers_is_a_full_stop() -> None:
    """Three questions of SQuAD's development set have such an answer."""
    expected = [has("elimination of French power", "."), has("Paris")]
    found = unanswerable_scores(METRICS, ["", "Paris"], np.array([1.0, -1.0]), expected, 0.0)
    assert found.values == {"exact_match": 50.0, "f1": 50.0}
