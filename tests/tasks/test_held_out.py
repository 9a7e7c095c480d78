"""Rows held out of training: a fixed choice, disjoint, whole, and never the validation split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pq = pytest.importorskip("pyarrow.parquet")

from sparsebert.errors import DataError, OutputError
from sparsebert.tasks.division import hold_out
from sparsebert.tasks.examples import load_split, selection
from sparsebert.tasks.table import get_task
from tiny_tasks import write_contexts, write_regression, write_rows, write_squad


def rows(folder: Path, split: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / f"{split}.parquet").to_pylist()
    return found


@pytest.mark.parametrize("count", [2, 3, 37, 100])
def test_disjoint_whole_and_in_order(tmp_path: Path, count: int) -> None:
    data = write_regression(tmp_path / "data", train=count)
    told = hold_out("stsb", data, tmp_path / "out")
    train, held = rows(tmp_path / "out", "train"), rows(tmp_path / "out", "validation")
    assert told == {"train": len(train), "validation": len(held)}
    assert len(held) == max(round(count / 5), 1)
    places = [[row["idx"] for row in part] for part in (train, held)]
    assert sorted(places[0] + places[1]) == list(range(count))
    assert all(part == sorted(part) for part in places)
    whole = load_split(get_task("stsb"), data, "train")
    assert all(whole.texts[row["idx"]] == row["sentence1"] for row in train + held)


def test_the_same_rows_every_time(tmp_path: Path) -> None:
    data = write_regression(tmp_path / "data", train=50)
    other = write_regression(tmp_path / "other", train=50, seed=9)
    for source, out in ((data, "a"), (data, "b"), (other, "c")):
        hold_out("stsb", source, tmp_path / out)
    held = [[row["idx"] for row in rows(tmp_path / out, "validation")] for out in "abc"]
    assert held[0] == held[1] == held[2]
    # Written down, so that no version of any library deals them out otherwise.
    assert held[0] == [0, 7, 9, 11, 12, 24, 27, 35, 42, 47]


@pytest.mark.parametrize("copies", [2, 5])
def test_rows_with_the_same_texts_stay_together(tmp_path: Path, copies: int) -> None:
    texts = [(f"{n} a", "b") for n in range(12)] * copies + [("b", f"{n} a") for n in range(30)]
    data = ({"sentence1": a, "sentence2": b, "label": 1.0} for a, b in texts)
    write_rows(tmp_path / "data" / "train.jsonl", data)
    told = hold_out("stsb", tmp_path / "data", tmp_path / "out")
    train, held = (
        [(row["sentence1"], row["sentence2"]) for row in rows(tmp_path / "out", split)]
        for split in ("train", "validation")
    )
    assert abs(len(held) - len(texts) / 5) < copies
    assert (len(train), len(held)) == (told["train"], told["validation"])
    assert train == [each for each in texts if each in set(train)]
    assert held == [each for each in texts if each in set(held)]
    assert not set(train) & set(held)
    write_rows(tmp_path / "same.jsonl", [{"sentence1": "a", "sentence2": "b", "label": 1.0}] * 9)
    with pytest.raises(DataError, match="too few different texts"):
        hold_out("stsb", tmp_path / "same.jsonl", tmp_path / "none")


def test_of_the_rows_that_training_would_see(tmp_path: Path) -> None:
    data = write_regression(tmp_path / "data", train=50)
    hold_out("stsb", data, tmp_path / "out", max_rows=20, share=0.25)
    parts = [rows(tmp_path / "out", split) for split in ("train", "validation")]
    assert [len(part) for part in parts] == [15, 5]
    kept = selection(50, 20)
    assert kept is not None
    assert sorted(row["idx"] for part in parts for row in part) == kept.tolist()


def test_validation_is_not_read(tmp_path: Path) -> None:
    data = write_regression(tmp_path / "data")
    (data / "validation.jsonl").write_text("no JSON")
    hold_out("stsb", data, tmp_path / "out")
    hold_out("stsb", data / "train.jsonl", tmp_path / "from-the-file-alone")
    assert rows(tmp_path / "out", "train") == rows(tmp_path / "from-the-file-alone", "train")


def test_mnli_and_squad_can_be_read_again(tmp_path: Path) -> None:
    data = tmp_path / "mnli"
    write_rows(
        data / "train.jsonl",
        ({"premise": f"{n}", "hypothesis": "b", "label": n % 3} for n in range(10)),
    )
    assert hold_out("mnli", data, tmp_path / "a") == {"train": 8, "validation_matched": 2}
    assert len(load_split(get_task("mnli"), tmp_path / "a", "validation_matched")) == 2
    hold_out("squad", write_squad(tmp_path / "squad"), tmp_path / "b")
    held = load_split(get_task("squad"), tmp_path / "b", "validation")
    assert len(held) == 4
    assert all(answer.texts[0].isdigit() for answer in held.answers)


def test_questions_about_a_context_stay_together(tmp_path: Path) -> None:
    told = hold_out("squad", write_contexts(tmp_path / "squad.jsonl"), tmp_path / "out")
    assert told == {"train": 60, "validation": 15}
    contexts = [{row["context"] for row in rows(tmp_path / "out", split)} for split in told]
    assert [len(each) for each in contexts] == [12, 3]


def test_each_class_keeps_a_row_to_train_on(tmp_path: Path) -> None:
    for place in range(20):
        labels = ["rare" if row == place else "ab"[row % 2] for row in range(20)]
        data = write_rows(
            tmp_path / f"{place}.jsonl",
            ({"text": f"{row}", "label": label} for row, label in enumerate(labels)),
        )
        told = hold_out("custom", data, tmp_path / f"out-{place}")
        assert told == {"train": 16, "validation": 4}
        assert {row["label"] for row in rows(tmp_path / f"out-{place}", "train")} == {*labels}


def test_errors(tmp_path: Path) -> None:
    data = write_regression(tmp_path / "data")
    with pytest.raises(DataError, match="share must be between 0 and 1"):
        hold_out("stsb", data, tmp_path / "out", share=1.0)
    with pytest.raises(DataError, match="has 1 row"):
        hold_out("stsb", data, tmp_path / "out", max_rows=1)
    with pytest.raises(DataError, match="lacks the column"):
        hold_out("qqp", data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    hold_out("stsb", data, tmp_path / "out")
    with pytest.raises(OutputError, match="exists"):
        hold_out("stsb", data, tmp_path / "out")
