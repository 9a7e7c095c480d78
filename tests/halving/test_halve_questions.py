"""`sparsebert halve` of question-answering models, also of those that say where no answer is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsebert as sb
from short_runs import FAST, LEARN
from sparsebert.checkpoint.sparsity import null_threshold
from sparsebert.errors import DataError
from sparsebert.halving.subject import recognise
from sparsebert.tasks.data_options import DataOptions
from tiny_models import TinyBert
from tiny_tasks import write_rows, write_squad, write_squad_v2

THRESHOLD = -1.0


@pytest.fixture(scope="module")
def unanswerable(tmp_path_factory: pytest.TempPathFactory, tiny_bert: TinyBert) -> Path:
    """A model that was trained to say where there is no answer, by a threshold of its own."""
    folder = tmp_path_factory.mktemp("v2")
    data = write_squad_v2(folder / "data")
    options = {**LEARN, "task": "squad_v2", "max_length": 32, "threshold": THRESHOLD}
    sb.finetune(tiny_bert(), folder / "out", data=data, **options)
    return folder / "out"


def without_answers(data: Path, out: Path) -> Path:
    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    return write_rows(out, ({name: row[name] for name in ("question", "context")} for row in rows))


def test_scored_and_by_its_own_answers(tiny_bert: TinyBert, tmp_path: Path) -> None:
    data = write_squad(tmp_path / "data", train=24)
    model = tiny_bert("question-answering")
    result = sb.halve(model, tmp_path / "out", data=data, effort="quick", **FAST)
    assert (result.judgement.metric, result.judgement.agreement) == ("f1", False)
    texts = without_answers(data, tmp_path / "asked.jsonl")
    result = sb.halve(model, tmp_path / "again", texts=[texts], effort="quick", **FAST)
    assert result.judgement.agreement


def test_rows_without_an_answer_are_recognised(
    tiny_bert: TinyBert, unanswerable: Path, tmp_path: Path
) -> None:
    all_have, some_have_none = write_squad(tmp_path / "v1"), write_squad_v2(tmp_path / "v2")
    plain = tiny_bert("question-answering")

    def task(model: Path, data: Path, **options: Any) -> str:
        found = recognise(model, data=data, **options).task
        assert found is not None
        return found.name

    assert task(plain, all_have) == "squad"
    assert task(plain, some_have_none) == task(unanswerable, all_have) == "squad_v2"
    assert task(unanswerable, all_have, task="squad") == "squad"
    with pytest.raises(DataError, match="regression is for the task custom"):
        recognise(plain, data=all_have, columns=DataOptions(regression=True))


@pytest.mark.parametrize("labelled", [True, False])
def test_no_answer_is_distilled(unanswerable: Path, tmp_path: Path, labelled: bool) -> None:
    """The halved model says that there is none where the dense one does, by its threshold."""
    data = write_squad_v2(tmp_path / "data", train=90, seed=3)
    given: dict[str, Any] = {"data": data}
    if not labelled:
        given = {"texts": [without_answers(data, tmp_path / "asked.jsonl")]}
    out = tmp_path / "out"
    judged = sb.halve(unanswerable, out, **given, **FAST).judgement
    assert judged.agreement is not labelled
    assert labelled or judged.dense == pytest.approx(100)
    assert null_threshold(sb.load(out).config.sparsity) == THRESHOLD
    rows = [json.loads(line) for line in (data / "validation.jsonl").read_text().splitlines()]
    asked = [[row[name] for row in rows] for name in ("question", "context")]
    dense, halved = (
        np.array([each["text"] == "" for each in sb.load(model).answer(*asked)])
        for model in (unanswerable, out)
    )
    assert 0 < dense.mean() < 1
    assert (dense == halved).mean() > 0.8
