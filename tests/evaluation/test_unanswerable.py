"""Questions without an answer: SQuAD v2's scores, thresholds and the answers that are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsebert as sb
from findings import by_kind
from short_runs import LEARN
from sparsebert.diagnosis import diagnose
from sparsebert.errors import DataError
from sparsebert.evaluation.unanswerable import best_threshold, unanswerable_scores
from sparsebert.inference.answering import null_score
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.examples import load_split
from sparsebert.tasks.own import find_task
from sparsebert.tasks.squad import Answers
from sparsebert.tasks.table import get_task
from tiny_models import TinyBert
from tiny_tasks import write_squad, write_squad_v2

METRICS = ("exact_match", "f1")
NONE = Answers((), ())


def has(*texts: str) -> Answers:
    return Answers(texts, (0,) * len(texts))


class TestScores:
    def test_values_by_hand(self) -> None:
        expected = [has("red wall"), has("Bob", "Bobby"), NONE, NONE]
        texts, nulls = ["the red wall", "Bob Ross", "a door", "a dog"], np.array([-2.0, -1, -3, 4])
        found = unanswerable_scores(METRICS, texts, nulls, expected, 0.0)
        # Right; F1 of "bob ross" and "bob" 2/3; answered though there is none; rightly silent.
        assert found.values == pytest.approx({"exact_match": 50, "f1": 25 * (1 + 2 / 3 + 0 + 1)})
        assert found.by_class["HasAns"] == pytest.approx(
            {"exact_match": 50, "f1": 50 * (1 + 2 / 3), "rows": 2}
        )
        assert found.by_class["NoAns"] == {"exact_match": 50, "f1": 50, "rows": 2}
        silent = unanswerable_scores(METRICS, texts, nulls, expected, -10.0)
        assert silent.values == {"exact_match": 50, "f1": 50}

    def test_the_best_threshold_is_as_the_official_script_finds_it(self) -> None:
        """``find_best_thresh_v2`` of evaluate-v2.0.py, and a search over all thresholds."""
        random = np.random.default_rng(0)
        for _ in range(5):
            expected = [has("w") if random.integers(3) else NONE for _ in range(15)]
            texts = ["w" if random.integers(2) else "x" for _ in expected]
            nulls = np.round(random.normal(size=15), 1)

            def score(threshold: float, asked: Any = (texts, nulls, expected)) -> float:
                return unanswerable_scores(("f1",), *asked, threshold).values["f1"]

            threshold, best = best_threshold("f1", texts, nulls, expected)
            assert score(threshold) == pytest.approx(best)
            tried = [float(nulls.min()) - 1, *map(float, nulls)]
            assert best == pytest.approx(max(map(score, tried)))

    def test_the_best_threshold_is_one_that_can_be_set(self) -> None:
        """Also if some context has no possible span, so that nothing can be likelier than it."""
        asked = (["w", ""], np.array([2.0, np.inf]), [has("w"), has("x")])
        threshold, best = best_threshold("f1", *asked)
        assert np.isfinite(threshold)
        assert unanswerable_scores(("f1",), *asked, threshold).values["f1"] == best == 50

    def test_no_answer_is_as_likely_as_in_the_least_likely_window(self) -> None:
        windows = [np.array([[3.0, 1], [9, 9]]), np.array([[0.5, 1], [0, 0]])]
        assert null_score(windows) == 1.5


class TestData:
    def test_rows_without_an_answer_are_of_v2_alone(self, tmp_path: Path) -> None:
        write_squad_v2(tmp_path)
        examples = load_split(get_task("squad_v2"), tmp_path, "train")
        assert sum(not each.texts for each in examples.answers) == 20
        with pytest.raises(DataError, match="row 1: it has no answer.*the task squad_v2"):
            load_split(get_task("squad"), tmp_path, "train")
        findings = by_kind(diagnose(data=tmp_path, task="squad_v2"))
        assert "wrong-answers" not in findings

    def test_a_threshold_is_of_v2_alone(self) -> None:
        options = DataOptions(threshold=1.5)
        assert find_task("squad-v2", None, options=options).threshold == 1.5
        with pytest.raises(DataError, match="threshold is for"):
            find_task("squad", None, options=options)
        with pytest.raises(DataError, match="finite"):
            find_task("squad_v2", None, options=DataOptions(threshold=float("inf")))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_bert: TinyBert) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("v2")
    data = write_squad_v2(folder / "data")
    options = {**LEARN, "task": "squad_v2", "epochs": 8, "max_length": 32}
    sb.finetune(tiny_bert(), folder / "out", data=data, threshold=-1.0, **options)
    return folder / "out", data


def test_the_model_answers_as_it_is_scored(trained: tuple[Path, Path]) -> None:
    out, data = trained
    found = sb.evaluate(out, task="squad_v2", data=data)
    assert set(found.by_class["validation"]) == {"HasAns", "NoAns"}
    assert any("the threshold was -1;" in note for note in found.notes)
    assert found.scores == sb.evaluate(out, task="squad_v2", data=data, engine="torch").scores
    examples = load_split(get_task("squad_v2"), data, "validation")
    model = sb.load(out)
    asked = [examples.texts, examples.pairs]
    said = [each["text"] for each in model.answer(*asked)]
    right = [
        text in answers.texts if answers.texts else text == ""
        for text, answers in zip(said, examples.answers, strict=True)
    ]
    assert 100 * np.mean(right) == pytest.approx(found.scores["validation"]["exact_match"])
    never = model.answer(*asked, null_threshold=float("inf"))
    assert all(each["text"] for each in never)
    always = model.answer(*asked, null_threshold=-1e6)
    assert all((each["text"], each["start"], each["end"]) == ("", 0, 0) for each in always)
    assert always[0]["score"] == pytest.approx(1)
    stricter = sb.evaluate(out, task="squad_v2", data=data, threshold=-1e6)
    assert stricter.by_class["validation"]["NoAns"]["f1"] == 100


def test_others_say_so_only_when_asked(tiny_bert: TinyBert, tmp_path: Path) -> None:
    write_squad(tmp_path)
    model = sb.load(tiny_bert("question-answering"))
    assert model.answer("which ?", "a 7 b")["text"]
    listed = model.answer("which ?", "a 7 b", top_k=20, null_threshold=0.0)
    assert sum(each["text"] == "" for each in listed) == 1
    assert sum(each["score"] for each in listed) == pytest.approx(1)
