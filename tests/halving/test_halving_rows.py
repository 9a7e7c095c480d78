"""The rows of a halving: learnt from, chosen on, reported on; and data that is refused at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from short_runs import FAST
from sparsebert import halve, load
from sparsebert.errors import DataError
from sparsebert.evaluation import evaluate
from sparsebert.halving.judgement import judge_task
from sparsebert.halving.rows import prepare
from sparsebert.halving.subject import Subject, recognise
from sparsebert.halving.texts import gather
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.division import divide
from sparsebert.tasks.examples import load_split
from sparsebert.tasks.own import own_task
from sparsebert.tasks.table import CUSTOM
from sparsebert.tasks.texts import read_texts, single_texts, texts_of
from tiny_models import TinyBert
from tiny_tasks import letters, write_conll, write_label_sets, write_retrieval, write_rows

NAMES = {0: "no", 1: "maybe", 2: "yes"}
THREE: dict[str, Any] = {
    "num_labels": 3,
    "id2label": NAMES,
    "label2id": {name: number for number, name in NAMES.items()},
}


@pytest.fixture
def tickets(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(data / "train.jsonl", tmp_path / "tickets.jsonl"))


def pairs(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"text1": f"a {n}", "text2": f"b {n}", "score": n % 6} for n in range(start, start + count)
    ]


def scored_and_learnt(
    subject: Subject, work: Path, *, choose: bool = False
) -> tuple[set[str], set[str], list[str]]:
    """Texts of the rows to report on and to learn from, and the notes."""
    work.mkdir()
    gathered = gather(subject)
    rows = prepare(work, subject, gathered, choose=choose, threads=1)
    assert subject.task is not None
    assert isinstance(rows.scored, Path)
    scored = texts_of(load_split(subject.task, rows.scored, "validation"))
    learnt = read_texts(rows.folders.texts)
    return set(single_texts(scored)), set(single_texts(learnt)), gathered.notes


class TestHeldOutOfTheDenseModelsTraining:
    """Rows that the model learned by heart say nothing about what it knows."""

    @pytest.mark.parametrize("texts", [False, True])
    def test_only_these_rows_are_scored(
        self, teacher: Path, tickets: Path, tmp_path: Path, texts: bool
    ) -> None:
        model = shutil.copytree(teacher, tmp_path / "model")
        whole = load_split(own_task(CUSTOM, tickets), tickets, "train")
        division = divide(whole, tickets, 0.3)
        division.write(model)
        subject = recognise(model, data=tickets, texts=[tickets] if texts else [])
        scored, learnt, notes = scored_and_learnt(subject, tmp_path / "work", choose=True)
        assert scored == {whole.texts[row].strip() for row in division.indices()}
        assert not scored & learnt
        count = len(division.validation)
        assert f"tickets.jsonl: scored on the {count} rows held out of the dense" in notes[-1]

    @pytest.mark.parametrize("recorded", [False, True])
    def test_evaluate_scores_the_same_rows(
        self, teacher: Path, tickets: Path, tmp_path: Path, recorded: bool
    ) -> None:
        model, out = shutil.copytree(teacher, tmp_path / "model"), tmp_path / "out"
        if recorded:
            divide(load_split(own_task(CUSTOM, tickets), tickets, "train"), tickets, 0.3).write(
                model
            )
        judged = halve(model, out, data=tickets, effort="quick", **FAST).judgement
        if not recorded:
            shutil.copy(out / "split.json", model)
        for folder, score in ((model, judged.dense), (out, judged.halved)):
            found = evaluate(folder, task="custom", data=tickets)
            assert found.rows == {"validation": judged.rows}
            assert found.scores["validation"]["accuracy"] == pytest.approx(score)

    def test_unknown_rows_are_told(
        self, teacher: Path, dense: Path, data: Path, tickets: Path, tmp_path: Path
    ) -> None:
        for number, (model, given, told) in enumerate(
            ((teacher, tickets, True), (teacher, data, False), (dense, tickets, False))
        ):
            subject = recognise(model, data=given)
            notes = scored_and_learnt(subject, tmp_path / f"work-{number}")[2]
            assert any("may have been trained on the scored rows" in note for note in notes) is told


class TestEmbeddings:
    """The texts of scored rows are not learnt from, and rounds are not chosen by them."""

    @pytest.mark.parametrize("kind", ["file", "train alone", "splits", "texts"])
    @pytest.mark.parametrize("choose", [False, True])
    def test_scored_pairs(
        self, tiny_bert: TinyBert, tmp_path: Path, kind: str, choose: bool
    ) -> None:
        data, texts = tmp_path / "data", []
        if kind in ("file", "texts"):
            data = write_rows(tmp_path / "pairs.jsonl", pairs(50))
        else:
            write_rows(data / "train.jsonl", pairs(50))
        count = 10
        if kind == "splits":  # with texts in common
            write_rows(data / "validation.jsonl", pairs(30, start=40))
            count = 30
        if kind == "texts":
            texts = [write_rows(tmp_path / "more.jsonl", pairs(50, start=30))]
            count = 50
        subject = recognise(tiny_bert("encoder"), data=data, texts=texts)
        scored, learnt, _ = scored_and_learnt(subject, tmp_path / "work", choose=choose)
        assert len(scored) == 2 * count
        assert learnt
        assert not learnt & scored
        rows = prepare(tmp_path / "work", subject, gather(subject), choose=choose, threads=1)
        assert isinstance(rows.choice, list)
        assert bool(rows.choice) is choose
        assert not {*single_texts(rows.choice)} & (learnt | scored)

    def test_a_single_file_is_reported_on_by_a_fifth(
        self, tiny_bert: TinyBert, tmp_path: Path
    ) -> None:
        data = write_rows(tmp_path / "pairs.jsonl", pairs(50))
        result = halve(tiny_bert("encoder"), tmp_path / "out", data=data, effort="quick", **FAST)
        assert (result.judgement.metric, result.judgement.rows) == ("spearman", 10)

    def test_no_text_is_left(self, tiny_bert: TinyBert, tmp_path: Path) -> None:
        for split in ("train", "validation"):
            write_rows(tmp_path / "data" / f"{split}.jsonl", pairs(9))
        with pytest.raises(DataError, match="every text is among the rows used for scoring"):
            halve(tiny_bert("encoder"), tmp_path / "out", data=tmp_path / "data", **FAST)
        assert not (tmp_path / "out.halving").exists()

    def test_queries_in_a_train_file_alone(self, tiny_bert: TinyBert, tmp_path: Path) -> None:
        data = write_retrieval(tmp_path / "data")
        (data / "validation.jsonl").unlink()
        subject = recognise(tiny_bert("encoder"), data=data, task="retrieval")
        scored, learnt, _ = scored_and_learnt(subject, tmp_path / "work")
        assert scored
        assert not scored & learnt

    def test_a_corpus_without_scored_queries_is_refused(
        self, tiny_bert: TinyBert, tmp_path: Path
    ) -> None:
        write_rows(tmp_path / "corpus.jsonl", [{"_id": "d", "text": "a b"}])
        write_rows(tmp_path / "queries.jsonl", [{"_id": "q", "text": "a"}])
        (tmp_path / "qrels").mkdir()
        (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
        with pytest.raises(DataError, match=r"qrels holds no validation\.tsv"):
            recognise(tiny_bert("encoder"), data=tmp_path, task="retrieval")


class TestLabels:
    @pytest.mark.parametrize("write", [write_label_sets, write_conll])
    def test_each_label_is_among_the_rows_to_learn_from(
        self, dense: Path, tmp_path: Path, write: Callable[..., Path]
    ) -> None:
        """An encoder knows only those: a rare one in the scored rows would be an error."""
        (train,) = write(tmp_path / "data").glob("train*")
        rare, end = "w B-RARE", "\n\n"
        if train.suffix == ".jsonl":
            rare, end = '{"text": "w", "label": ["rare"]}', "\n"
        rows = train.read_text(encoding="utf-8").split(end)
        for place in range(12):
            data = tmp_path / f"{place}{train.suffix}"
            data.write_text(end.join([*rows[:place], rare, *rows[place:]]), encoding="utf-8")
            subject = recognise(dense, data=data)
            scored_and_learnt(subject, tmp_path / f"work-{place}", choose=True)
            assert subject.task is not None
            learnt = own_task(subject.task.name, tmp_path / f"work-{place}" / "data")
            assert learnt.labels == subject.task.labels

    def test_other_texts_are_not_those_of_scored_rows(
        self, teacher: Path, data: Path, tmp_path: Path
    ) -> None:
        both = tmp_path / "both.jsonl"
        both.write_text(
            "".join((data / f"{split}.jsonl").read_text() for split in ("train", "validation"))
        )
        subject = recognise(teacher, data=data, texts=[both])
        scored, learnt, _ = scored_and_learnt(subject, tmp_path / "work")
        assert learnt
        assert not scored & learnt


class TestClasses:
    """A model of three classes, and data that lacks one or has numbers."""

    @pytest.mark.parametrize(("effort", "single"), [("quick", False), ("standard", True)])
    def test_all_are_kept(
        self,
        tiny_bert: TinyBert,
        data: Path,
        tickets: Path,
        tmp_path: Path,
        effort: str,
        single: bool,
    ) -> None:
        model = tiny_bert("sequence-classification", **THREE)
        given = tickets if single else data
        result = halve(model, tmp_path / "out", data=given, effort=effort, **FAST)
        assert load(tmp_path / "out").config.labels == tuple(NAMES.values())
        assert (result.judgement.metric, result.judgement.rows) == (
            "accuracy",
            12 if single else 24,
        )
        assert not result.judgement.agreement

    def test_numbers_become_names(self, tiny_bert: TinyBert, tmp_path: Path) -> None:
        rows = [{"text": f"a {n}", "label": 2 * (n % 2)} for n in range(40)]
        file = write_rows(tmp_path / "numbers.jsonl", rows)
        subject = recognise(tiny_bert("sequence-classification", **THREE), data=file)
        scored_and_learnt(subject, tmp_path / "work")
        folder = tmp_path / "work" / "scored"
        assert own_task(CUSTOM, folder).labels == ("maybe", "no", "yes")

    def test_other_names_are_refused_at_once(self, tiny_bert: TinyBert, data: Path) -> None:
        for settings in ({}, {"id2label": {0: "No", 1: "Yes"}, "label2id": {"No": 0, "Yes": 1}}):
            model = tiny_bert("sequence-classification", num_labels=2, **settings)
            with pytest.raises(DataError, match="the labels no, yes of the data are not among"):
                recognise(model, data=data)

    def test_a_label_of_the_validation_rows_alone(
        self, teacher: Path, dense: Path, data: Path, tmp_path: Path
    ) -> None:
        copy = shutil.copytree(data, tmp_path / "data")
        with (copy / "validation.jsonl").open("a") as rows:
            rows.write(json.dumps({"text": "a", "label": "never"}) + "\n")
        for model in (teacher, dense):
            with pytest.raises(DataError, match="'never' is not one of the labels"):
                recognise(model, data=copy)


def test_named_columns_are_read_where_they_are(tiny_bert: TinyBert, tmp_path: Path) -> None:
    rows = [{"body": f"body {n}", "text": f"headline {n}", "label": n % 2} for n in range(9)]
    data = write_rows(tmp_path / "data.jsonl", rows)
    texts = [
        write_rows(tmp_path / "more.jsonl", [{"body": "body", "text": "headline"}]),
        write_rows(tmp_path / "other.jsonl", [{"text": "only a text"}]),
        tmp_path / "lines.txt",
    ]
    texts[2].write_text("a line\n")
    subject = recognise(
        tiny_bert("sequence-classification", num_labels=2),
        data=data,
        texts=texts,
        columns=DataOptions(text_column="body"),
    )
    assert gather(subject).texts == ["body", "only a text", "a line"]


def test_of_two_splits_the_first_counts(tiny_bert: TinyBert, tmp_path: Path) -> None:
    """In MNLI's second split the answers are the other model's, which must not be averaged in."""
    names = dict(enumerate(("entailment", "neutral", "contradiction")))
    named: dict[str, Any] = {
        "num_labels": 3,
        "id2label": names,
        "label2id": {name: number for number, name in names.items()},
    }
    models = [tiny_bert("sequence-classification", seed=seed, **named) for seed in (0, 5)]
    random = np.random.default_rng(0)
    for name, count, model in zip(("matched", "mismatched"), (30, 20), models, strict=True):
        texts = [(letters(random, "x"), letters(random, "y")) for _ in range(count)]
        answers = [found[0]["label"] for found in load(model).classify(texts)]
        write_rows(
            tmp_path / "data" / f"validation_{name}.jsonl",
            (
                {"premise": a, "hypothesis": b, "label": label}
                for (a, b), label in zip(texts, answers, strict=True)
            ),
        )
    write_rows(tmp_path / "data" / "train.jsonl", [{"premise": "a", "hypothesis": "b", "label": 0}])
    subject = recognise(models[0], data=tmp_path / "data")
    judged = judge_task(
        subject, "mnli", tmp_path / "data", *models,
        columns=DataOptions(), threads=1, progress=lambda *_: None,
    )  # fmt: skip
    assert (judged.dense, judged.rows) == (100, 30)
    assert judged.interval is not None
    assert judged.interval[0] <= -judged.drop <= judged.interval[1] <= 0
    assert "validation_mismatched, accuracy, halved" in judged.more
