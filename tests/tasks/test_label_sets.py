"""Several labels a row: lists of names or numbers, and a column of zeros and ones for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from findings import by_kind
from sparsebert.diagnosis import diagnose
from sparsebert.errors import DataError
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.examples import load_split
from sparsebert.tasks.own import own_task
from sparsebert.tasks.table import CUSTOM, Kind
from tiny_tasks import write_rows

ROWS = [
    {"text": "a", "label": ["red", "blue"]},
    {"text": "b", "label": []},
    {"text": "c", "label": ["green"]},
]
FLAGS = [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]  # of blue, green, red


def read(path: Path, labels: Any = None, **options: Any) -> Any:
    task = own_task(CUSTOM, path, labels=labels, options=DataOptions(**options))
    return load_split(task, path, "train")


def test_numbers_for_a_models_names_are_told(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": [2, 0]}, {"text": "b", "label": []}]
    path = write_rows(tmp_path / "train.jsonl", rows)
    found = read(path, labels=("blue", "green", "red"))
    assert found.labels.tolist() == FLAGS[:2]
    assert "(0 blue, 1 green, 2 red); if they mean others, name them with" in found.notes[0]
    for options in ({"labels": ("LABEL_0",) * 3}, {"label_names": "a,b,c"}):
        assert read(path, **options).notes == ()
    write_rows(path, [{"text": "a", "label": []}])
    assert read(path, labels=("blue", "green", "red")).notes == ()


def test_default_names_may_be_in_the_data(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", [{"text": "a", "label": ["LABEL_1"]}])
    assert read(path, labels=("LABEL_0", "LABEL_1")).labels.tolist() == [[0.0, 1.0]]


def test_numbers_in_one_split_do_not_stand_for_names_in_another(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", ROWS)
    write_rows(tmp_path / "validation.jsonl", [{"text": "d", "label": [0]}])
    with pytest.raises(DataError, match="row 1: 0 is not one of the labels"):
        load_split(own_task(CUSTOM, tmp_path), tmp_path, "validation")


def test_lists_of_names(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    examples = read(path)
    assert examples.task.kind is Kind.LABEL_SETS
    assert examples.task.labels == ("blue", "green", "red")
    assert examples.labels.tolist() == FLAGS
    assert examples.take(np.array([2, 0]), "some").labels.tolist() == [FLAGS[2], FLAGS[0]]
    turned = read(path, labels=("red", "green", "blue"))  # a trained model's own order
    assert turned.labels.tolist() == [row[::-1] for row in FLAGS]


def test_numbers_and_a_column_called_labels(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "labels": [2, 0]},
        {"text": "b", "labels": []},
        {"text": "c", "labels": [1]},
    ]
    path = write_rows(tmp_path / "train.jsonl", rows)
    assert read(path).task.labels == ("0", "1", "2")
    named = read(path, label_names="blue,green,red")
    assert (named.task.labels, named.labels.tolist()) == (("blue", "green", "red"), FLAGS)


@pytest.mark.parametrize("header", ["blue,green,red", "red,green,blue"])
def test_a_column_for_each(tmp_path: Path, header: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text("text,blue,green,red\na,1,0,1\nb,0,False,0\nc,0,1.0,0\n")
    examples = read(path, label_columns=header)
    assert examples.task.labels == tuple(header.split(","))
    order = [("blue", "green", "red").index(name) for name in examples.task.labels]
    assert examples.labels.tolist() == [[row[index] for index in order] for row in FLAGS]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (ROWS, {"positive_label": "red"}, "positive_label does not apply to rows with several"),
        (ROWS, {"threshold": 1.5}, "must be between 0 and 1, not 1.5"),
        (ROWS, {"label_columns": "red"}, "lacks the column 'red'"),
        ([{"text": "a", "red": 2}], {"label_columns": "red"}, "column 'red', row 1: 2 is neither"),
        (
            [{"text": "a", "label": ["x"]}],
            {},
            "contain 1 different label; a task needs at least two",
        ),
        ([{"text": "a", "label": [["x"]]}], {}, "is not a list of labels"),
        ([{"text": "a", "label": "x"}], {"threshold": 0.3}, "threshold is for rows with several"),
    ],
)
def test_what_is_refused(tmp_path: Path, rows: Any, options: Any, message: str) -> None:
    path = write_rows(tmp_path / "train.jsonl", rows)
    with pytest.raises(DataError, match=message):
        read(path, **options)


def test_a_label_that_the_model_has_not(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(DataError, match="row 1: 'blue' is not one of the labels"):
        read(path, labels=("red", "green"))


def test_a_label_of_the_model_without_a_column(tmp_path: Path) -> None:
    """Its answers would count as wrong in every row, though nothing is known about them."""
    path = write_rows(tmp_path / "train.jsonl", [{"text": "a", "red": 1, "blue": 0}])
    with pytest.raises(DataError, match="also gives the labels green, but label_columns names no"):
        read(path, labels=("blue", "green", "red"), label_columns="red,blue")
    found = read(path, labels=("blue", "red"), label_columns="red,blue")
    assert found.labels.tolist() == [[0.0, 1.0]]


def test_doctor_reads_them(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", ROWS)
    write_rows(tmp_path / "validation.jsonl", [{"text": "d", "label": ["red"]}])
    assert by_kind(diagnose(data=tmp_path, task="custom")) == {}
    write_rows(tmp_path / "train.jsonl", [*ROWS[:2], {"text": "e", "label": ["red"]}])
    write_rows(tmp_path / "validation.jsonl", [ROWS[2]])
    assert set(by_kind(diagnose(data=tmp_path, task="custom"))) == {"unusable-data"}
