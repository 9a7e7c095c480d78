"""Texts without labels beside a task's rows: what is read, and what a student learns from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from short_runs import LEARN, QUICK, assert_same_bits, assert_zeros_held, interrupt_at
from sparsebert.errors import DataError, TrainingError
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.examples import load_split
from sparsebert.tasks.table import Kind, get_task
from sparsebert.training import finetune
from sparsebert.training.data import read_run_data, read_unlabelled
from sparsebert.training.options import FinetuneOptions
from sparsebert.training.seeds import finetune_seeds
from tiny_tasks import letters, write_regression, write_rows

PAIRS = [("a b", "c"), ("d", "e f"), ("g", "h"), ("i", "j k l")]

pytestmark = pytest.mark.usefixtures("short_garbage_collections")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 texts with an x or a y in them."""
    random = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("unlabelled") / "texts.txt"
    path.write_text("".join(f"{letters(random, 'xy'[row % 2])}\n" for row in range(80)))
    return path


def arguments_of(folder: Path) -> Any:
    return json.loads((folder / "training.json").read_text())["arguments"]


class TestReading:
    def read(self, source: Path, task: str, rows: int | None = None) -> Any:
        options = FinetuneOptions(teacher="t", unlabelled=str(source), unlabelled_rows=rows)
        return read_unlabelled(options, get_task(task))

    def pairs(self, folder: Path) -> Path:
        """A table with the columns of MNLI."""
        return write_rows(
            folder / "train.jsonl",
            ({"premise": first, "hypothesis": second} for first, second in PAIRS),
        )

    def test_pairs_of_another_task(self, tmp_path: Path) -> None:
        found = self.read(self.pairs(tmp_path).parent, "rte")
        assert list(zip(found.texts, found.pairs, strict=True)) == PAIRS

    def test_halves_of_pairs(self, tmp_path: Path) -> None:
        found = self.read(self.pairs(tmp_path), "sst2")
        assert found.texts == [text for pair in PAIRS for text in pair]
        assert found.pairs is None

    def test_the_tasks_own_column_comes_first(self, tmp_path: Path) -> None:
        task = replace(get_task("sst2"), text_columns=("body",))
        source = write_rows(tmp_path / "more.jsonl", [{"text": "a headline", "body": "words"}])
        options = FinetuneOptions(teacher="t", unlabelled=str(source))
        assert read_unlabelled(options, task).texts == ["words"]

    def test_a_fixed_selection(self, tmp_path: Path) -> None:
        source = self.pairs(tmp_path)
        found = [self.read(source, "rte", 2) for _ in range(2)]
        assert found[0].texts == found[1].texts
        places = [[first for first, _ in PAIRS].index(text) for text in found[0].texts]
        assert len(places) == 2
        assert places == sorted(places)
        assert self.read(source, "rte", 9).texts == [first for first, _ in PAIRS]

    def test_rows_to_score_on_are_left_out(self, tmp_path: Path) -> None:
        data = tmp_path / "rte"
        rows = [
            {"sentence1": first, "sentence2": second, "label": place % 2}
            for place, (first, second) in enumerate([*PAIRS[:2], ("h", "g")])
        ]
        write_rows(data / "train.jsonl", rows)
        write_rows(data / "validation.jsonl", rows)
        options = FinetuneOptions(teacher="t", unlabelled=str(self.pairs(tmp_path)))
        found = read_run_data("rte", data, options, DataOptions())
        assert found.unlabelled is not None
        assert (
            list(zip(found.unlabelled.texts, found.unlabelled.pairs or [], strict=True))
            == (PAIRS[2:])
        )
        left_out = "2 of the unlabelled texts are among the rows used for scoring: left out."
        assert left_out in found.notes
        same = FinetuneOptions(teacher="t", unlabelled=str(data / "train.jsonl"))
        with pytest.raises(DataError, match="every text in .* is among the rows used for scoring"):
            read_run_data("rte", data, same, DataOptions())
        alone = load_split(get_task("rte"), data, "validation")
        options = FinetuneOptions(teacher="t", unlabelled=str(self.pairs(tmp_path)))
        embeds = replace(alone, task=replace(alone.task, kind=Kind.PAIRS))
        left = read_unlabelled(options, embeds.task, [embeds]).texts
        assert left == ["i", "j k l"]

    def test_what_does_not_fit_the_task(self, texts: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"texts.txt holds single texts, but rte reads pairs"):
            self.read(texts, "rte")
        with pytest.raises(DataError, match="squad cannot use unlabelled texts"):
            self.read(texts, "squad")
        with pytest.raises(DataError, match="neither a file for the train split nor any .txt"):
            self.read(tmp_path, "sst2")
        with pytest.raises(DataError, match=r"missing.txt"):
            self.read(tmp_path / "missing.txt", "sst2")


class TestLearning:
    def test_more_than_from_a_few_rows(
        self, sparse: Path, teacher: Path, data: Path, texts: Path, tmp_path: Path
    ) -> None:
        # Four rows without an x or a y, on which the teacher has nothing to show.
        few = tmp_path / "few"
        rows = [{"text": "a b", "label": ("no", "yes")[row % 2]} for row in range(4)]
        write_rows(few / "train.jsonl", rows)
        (few / "validation.jsonl").write_bytes((data / "validation.jsonl").read_bytes())
        given = {**LEARN, "data": few, "teacher": teacher}
        alone = finetune(sparse, tmp_path / "alone", **given)
        result = finetune(sparse, tmp_path / "out", unlabelled=texts, **given)
        assert alone.scores["validation"]["accuracy"] < 75
        assert result.scores["validation"]["accuracy"] > 80
        assert result.rows == 4
        assert "80 unlabelled texts" in result.notes[-1]
        assert_zeros_held(tmp_path / "out", sparse)

    @pytest.mark.parametrize("rows", [None, 30])
    def test_they_count_as_rows_whose_labels_nobody_reads(
        self,
        sparse: Path,
        teacher: Path,
        data: Path,
        texts: Path,
        tmp_path: Path,
        rows: int | None,
    ) -> None:
        given = {**QUICK, "teacher": teacher, "hidden_weight": 1.0, "embeddings": "used"}
        finetune(
            sparse, tmp_path / "out", data=data, unlabelled=texts, unlabelled_rows=rows, **given
        )
        lines = texts.read_text().splitlines()
        if rows is not None:
            order = np.random.RandomState(20_240_501).permutation(len(lines))[:rows]
            lines = [lines[place] for place in sorted(order)]
        longer = tmp_path / "longer" / "train.jsonl"
        known = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
        write_rows(longer, [*known, *({"text": line, "label": "yes"} for line in lines)])
        finetune(sparse, tmp_path / "by-hand", data=longer.parent, **given)
        assert_same_bits(tmp_path / "out", tmp_path / "by-hand")

    def test_values(self, dense: Path, sparse: Path, tmp_path: Path) -> None:
        data = write_regression(tmp_path / "data")
        more = write_regression(tmp_path / "more", train=20, seed=7)
        given = {**QUICK, "task": "stsb", "data": data}
        finetune(dense, tmp_path / "teacher", **given)
        out = tmp_path / "out"
        result = finetune(sparse, out, teacher=tmp_path / "teacher", unlabelled=more, **given)
        assert "20 unlabelled texts" in result.notes[-1]
        assert arguments_of(out)["unlabelled"] == "more"

    def test_a_teacher_that_is_trained_first_has_no_use_for_them(
        self, dense: Path, sparse: Path, data: Path, texts: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        finetune(sparse, out, data=data, teacher=dense, unlabelled=texts, **QUICK)
        assert arguments_of(tmp_path / "out.teacher")["unlabelled"] is None
        assert arguments_of(out)["unlabelled"] == "texts.txt"
        assert str(tmp_path) not in (out / "recipe.yaml").read_text()


def test_an_interrupted_run_goes_on_with_the_same_texts_only(
    sparse: Path, teacher: Path, data: Path, texts: Path, tmp_path: Path
) -> None:
    mine, out = tmp_path / "texts.txt", tmp_path / "out"
    mine.write_bytes(texts.read_bytes())
    given = {**QUICK, "data": data, "teacher": teacher, "unlabelled": mine}
    with pytest.raises(KeyboardInterrupt):
        finetune(sparse, out, progress=interrupt_at(3), **given)
    mine.write_text(texts.read_text() + "a x b\n")
    with pytest.raises(TrainingError, match="unlabelled_rows was 80 and is now 81"):
        finetune(sparse, out, resume=True, **given)
    mine.write_bytes(texts.read_bytes())
    finetune(sparse, out, resume=True, **given)
    finetune(sparse, tmp_path / "at-once", **given)
    assert_same_bits(out, tmp_path / "at-once")


def test_seeds_with_other_texts_are_not_mixed(
    sparse: Path, teacher: Path, data: Path, texts: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {**QUICK, "epochs": 1, "data": data, "teacher": teacher}
    out = tmp_path / "out"
    first = finetune_seeds(sparse, out, seeds=[1], unlabelled=texts, **given)
    again = finetune_seeds(sparse, out, seeds=[1], unlabelled=texts, **given)
    assert first.seeds == again.seeds
    with pytest.raises(TrainingError, match=r"unlabelled was 'texts.txt' and is now None"):
        finetune_seeds(sparse, out, seeds=[1, 2], **given)
