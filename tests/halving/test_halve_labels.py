"""`sparsebert halve` of models that label each token, or give a text several labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pyarrow")
pytest.importorskip("seqeval")

from sentences import SENTENCES
from short_runs import FAST
from sparsebert import halve, load
from sparsebert.errors import DataError, InputError
from sparsebert.evaluation import evaluate
from sparsebert.evaluation.metrics import Scores
from sparsebert.evaluation.scoring import Judged
from sparsebert.halving.label_comparison import f1_interval, label_counts, shared_labels
from sparsebert.halving.subject import Goal, recognise
from sparsebert.halving.texts import Gathered, divide_texts
from sparsebert.tasks.own import own_task
from sparsebert.tasks.texts import read_texts
from tiny_models import TinyBert
from tiny_tasks import write_conll, write_label_sets, write_rows

TAGS = ("O", "B-PER", "I-PER", "B-LOC")
NER: dict[str, Any] = {
    "num_labels": 4,
    "id2label": dict(enumerate(TAGS)),
    "label2id": {tag: number for number, tag in enumerate(TAGS)},
}
SETS: dict[str, Any] = {
    "problem_type": "multi_label_classification",
    "id2label": dict(enumerate("xyz")),
    "label2id": {name: number for number, name in enumerate("xyz")},
}


class TestLabels:
    """Models of several labels a text, or of one for each token: learnt and judged on texts."""

    @pytest.mark.parametrize(
        ("head", "settings"),
        [
            ("token-classification", {}),
            ("sequence-classification", {"problem_type": "multi_label_classification"}),
        ],
    )
    def test_texts(
        self, tiny_bert: TinyBert, tmp_path: Path, head: str, settings: dict[str, str]
    ) -> None:
        (tmp_path / "texts.txt").write_text("\n".join(SENTENCES))
        model, out = tiny_bert(head, **settings), tmp_path / "out"
        result = halve(model, out, texts=[tmp_path / "texts.txt"], **FAST)
        assert [step.title for step in result.steps][1] == "distil"
        assert result.judgement.agreement
        held = [
            str(text)
            for text in divide_texts(Gathered(list(SENTENCES), [], own=True), choose=True)[2]
        ]
        dense, halved = load(model), load(out)
        given = []
        for each in (dense, halved):
            if head.startswith("token"):
                found = [[tag["label"] for tag in tags] for tags in each.tag(held)]
                given.append(
                    {(row, *tag) for row, tags in enumerate(found) for tag in enumerate(tags)}
                )
            else:
                found = [
                    [one["label"] for one in ones if one["score"] > 0.5]
                    for ones in each.classify(held)
                ]
                given.append({(row, label) for row, ones in enumerate(found) for label in ones})
        shared = 200 * len(given[0] & given[1]) / (len(given[0]) + len(given[1]))
        assert result.judgement.halved == pytest.approx(shared)

    def test_most_tokens_have_no_label(self) -> None:
        """By hand: of two texts the dense model labels 2 and 1 tokens, the halved one 1 and 1."""
        dense = [np.eye(3)[[0, 1, 2, 0, 0]], np.eye(3)[[0, 0, 1, 0]]]
        halved = [np.eye(3)[[1, 1, 0, 0, 1]], np.eye(3)[[0, 0, 2, 0]]]
        counts = label_counts(dense, halved, tokens=True, outside=0)
        assert counts.tolist() == [[1, 2, 1], [0, 1, 1]]
        assert shared_labels(counts.sum(axis=0)) == pytest.approx(100 * 2 / 5)
        counts = label_counts(dense, halved, tokens=True, outside=None)
        assert counts.tolist() == [[2, 3, 3], [1, 2, 2]]

    def test_what_cannot_be(self, tiny_bert: TinyBert, tmp_path: Path) -> None:
        model = tiny_bert("token-classification")
        rows = [{"text1": f"a {row}", "text2": "b"} for row in range(60)]
        write_rows(tmp_path / "pairs.jsonl", rows)
        with pytest.raises(DataError, match="labels single texts, but these are pairs"):
            halve(model, tmp_path / "out", texts=[tmp_path / "pairs.jsonl"])
        write_rows(
            tmp_path / "rows.jsonl",
            [{"sentence": "a b", "label": 1}, {"sentence": "c", "label": 0}],
        )
        with pytest.raises(InputError, match="for each token, which does not fit SST-2"):
            halve(model, tmp_path / "out", data=tmp_path / "rows.jsonl", task="sst2")
        with pytest.raises(InputError, match="says how to read data, but no data was given"):
            halve(model, tmp_path / "out", texts=[tmp_path / "rows.jsonl"], task="ner")
        words = write_conll(tmp_path / "words")
        with pytest.raises(DataError, match="'O' is not one of the labels"):  # which are unnamed
            halve(model, tmp_path / "out", data=words)
        other = {**NER, "id2label": dict(enumerate(("O", "B-PER", "I-PER", "B-ORG")))}
        with pytest.raises(DataError, match="'B-LOC' is not one of the labels"):
            halve(tiny_bert("token-classification", **other), tmp_path / "out", data=words)


class TestLabelledData:
    """The data's labels are scored on and not learnt from, or an encoder learns them first."""

    @pytest.mark.parametrize(
        ("head", "settings", "write", "task", "metric"),
        [
            ("token-classification", NER, write_conll, "ner", "f1"),
            ("sequence-classification", SETS, write_label_sets, "custom", "micro_f1"),
        ],
    )
    def test_scored(
        self,
        tiny_bert: TinyBert,
        tmp_path: Path,
        head: str,
        settings: dict[str, Any],
        write: Callable[..., Path],
        task: str,
        metric: str,
    ) -> None:
        data, model = write(tmp_path / "data"), tiny_bert(head, **settings)
        result = halve(model, tmp_path / "out", data=data, effort="quick", **FAST)
        judged = result.judgement
        assert (judged.metric, judged.agreement, judged.rows) == (metric, False, 24)
        for folder, score in ((model, judged.dense), (tmp_path / "out", judged.halved)):
            found = evaluate(folder, task=task, data=data).scores["validation"]
            assert score == pytest.approx(found[metric])
        assert judged.interval is not None
        low, high = judged.interval
        assert low <= -judged.drop <= high

    def test_an_encoder_learns_them_first(self, dense: Path, tmp_path: Path) -> None:
        data = write_conll(tmp_path / "data")
        result = halve(dense, tmp_path / "out", data=data, effort="quick", **FAST)
        assert result.steps[0].title == "fine-tune the dense model"
        assert result.judgement.metric == "f1"
        assert set(load(tmp_path / "out").config.labels) == set(TAGS)

    def test_of_one_file_other_rows_are_scored_than_learnt(
        self, tiny_bert: TinyBert, tmp_path: Path
    ) -> None:
        file = shutil.copy(
            write_label_sets(tmp_path / "data") / "train.jsonl", tmp_path / "a.jsonl"
        )

        def stop(label: str, *_: int) -> None:
            if "prune" in label:
                raise KeyboardInterrupt

        model, work = tiny_bert("sequence-classification", **SETS), tmp_path / "out.halving"
        with pytest.raises(KeyboardInterrupt):
            halve(model, tmp_path / "out", data=file, effort="quick", progress=stop, **FAST)
        learnt = read_texts(work / "texts.parquet")
        scored = read_texts(work / "scored" / "validation.parquet")
        assert len(scored) == 12  # a fifth
        assert not set(scored) & set(learnt)
        result = halve(model, tmp_path / "out", data=file, effort="quick", **FAST)
        assert result.judgement.rows == 12

    def test_recognised(self, tiny_bert: TinyBert, dense: Path, tmp_path: Path) -> None:
        words, sets = write_conll(tmp_path / "words"), write_label_sets(tmp_path / "sets")
        tagger, several = (
            tiny_bert("token-classification", **NER),
            tiny_bert("sequence-classification", **SETS),
        )
        for model, data, goal, name in (
            (tagger, words, Goal.LABELS, "ner"),
            (several, sets, Goal.LABELS, "custom"),
            (dense, words, Goal.TASK, "ner"),
            (dense, sets, Goal.TASK, "custom"),
            (tagger, sets, Goal.LABELS, None),  # whose texts are read
        ):
            found = recognise(model, data=data)
            assert (found.goal, found.task and found.task.name) == (goal, name)
            assert found.labelled is (name is not None)

    def test_interval(self, tmp_path: Path) -> None:
        """Of rows that are all alike any selection has the same F1: here 50 less than 100."""
        task = own_task("ner", write_conll(tmp_path / "data"))
        right = [["B-PER", "I-PER", "O", "B-LOC"]] * 5
        given = [["B-PER", "O", "O", "B-LOC"]] * 5
        none = Scores({}, [])
        found = f1_interval(Judged(none, right, right), Judged(none, right, given), task)
        assert found == pytest.approx((-50, -50))
