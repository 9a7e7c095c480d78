"""Entity F1 against values by hand, and against CoNLL-2003's rules for each way of labelling."""

from __future__ import annotations

from pathlib import Path

import pytest

import sparsebert as sb
from model_folders import write_model
from sparsebert.errors import DataError
from sparsebert.evaluation.entities import entity_scores
from tiny_tasks import write_rows

METRICS = ("f1", "precision", "recall")


def scores(right: str, guessed: str, labels: str | None = None) -> tuple[float, float, float]:
    rows = [[row.split() for row in text.split("/")] for text in (right, guessed)]
    known = (labels or f"{right} {guessed}").replace("/", " ").split()
    values = entity_scores(METRICS, rows[1], rows[0], sorted(set(known))).values
    return values["f1"], values["precision"], values["recall"]


@pytest.mark.parametrize(
    ("right", "guessed", "counts"),
    [  # entities right, found, there
        ("B-A I-A O B-B", "B-A I-A O B-B", (2, 2, 2)),
        ("B-A I-A O B-B", "B-A O O B-B", (1, 2, 2)),  # a part is no entity
        ("B-A I-A O B-B", "B-A I-A O B-A", (1, 2, 2)),  # the kind counts
        ("B-A B-A", "B-A I-A", (0, 1, 2)),
        ("B-A I-A / O", "O O / B-A", (0, 1, 1)),
        ("B-A / I-A O", "B-A / I-A O", (2, 2, 2)),  # rows do not join, and I begins one too (IOB1)
        ("B-A I-B", "B-A I-B", (2, 2, 2)),
        ("S-A B-B I-B E-B O", "S-A B-B I-B E-B S-A", (2, 3, 2)),  # BIOES
        ("U-A B-B I-B L-B", "U-A B-B L-B U-B", (1, 3, 2)),  # BILOU
        ("PER PER O LOC", "PER PER O PER", (1, 2, 2)),  # IO
        ("E-mail O PHONE", "E-mail PHONE PHONE", (1, 2, 2)),  # names that only look like prefixes
        ("I-A I-A O", "I-A I-A I-A", (0, 1, 1)),
    ],
)
def test_counts_by_hand(right: str, guessed: str, counts: tuple[int, int, int]) -> None:
    hits, found, there = counts
    precision, recall = 100 * hits / found, 100 * hits / there
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    assert scores(right, guessed) == pytest.approx((f1, precision, recall))


def test_each_kind_and_what_is_worth_saying() -> None:
    labels = ("O", "B-A", "I-A", "B-B")
    right, guessed = [["B-A", "I-A", "B-B"], ["B-A"]], [["B-A", "I-A", "O"], ["B-B"]]
    found = entity_scores(METRICS, guessed, right, labels)
    assert found.by_class["A"] == {
        "precision": 100,
        "recall": 50,
        "f1": pytest.approx(200 / 3),
        "rows": 2,
    }
    assert found.by_class["B"] == {"precision": 0, "recall": 0, "f1": 0, "rows": 1}
    none = [["O", "O", "O"], ["O"]]
    silent = entity_scores(METRICS, none, right, labels)
    assert (silent.values["f1"], silent.notes) == (
        0,
        ["every word got the label O: the model finds no entity."],
    )
    assert entity_scores(METRICS, none, none, labels).notes == [
        "no row has an entity: the scores are meaningless."
    ]


@pytest.mark.parametrize("words", [["\u200b"], []])
def test_words_of_which_the_model_reads_none(tmp_path: Path, words: list[str]) -> None:
    pytest.importorskip("transformers")
    model = write_model(tmp_path / "model", "token-classification")  # no O: not entities
    rows = [{"tokens": words, "ner_tags": ["no"] * len(words)}]
    data = write_rows(tmp_path / "validation.jsonl", rows)
    with pytest.raises(DataError, match=r"validation.jsonl: the model can read none of the words"):
        sb.evaluate(model, task="ner", data=data)
