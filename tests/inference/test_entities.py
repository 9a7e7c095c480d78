"""Entities of a token classifier: what transformers' pipeline gives, by each of its strategies."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentences import SENTENCES, long_text
from sparsebert import load
from sparsebert.errors import InputError

transformers = pytest.importorskip("transformers")

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC", "S-PER", "E-LOC", "B-art-work"]
TEXTS = [*SENTENCES[:8], "Ünïcode—dashes, and  two blanks \u2603 at the end. ", "a"]


@pytest.fixture(scope="module", params=["bert", "roberta", "xlm-roberta"])
def folder(request: pytest.FixtureRequest, tiny_bert) -> Path:
    """Whose labels change from token to token, for its weights are random."""
    names = {
        "id2label": dict(enumerate(LABELS)),
        "label2id": {name: index for index, name in enumerate(LABELS)},
    }
    return tiny_bert(
        "token-classification",
        model_type=request.param,
        num_labels=len(LABELS),
        seed=4,
        **names,
    )


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
def test_entities_are_those_of_transformers(folder: Path, strategy: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that byte pairs do not mark words
        theirs = transformers.pipeline(
            "token-classification", model=str(folder), aggregation_strategy=strategy, device="cpu"
        )(TEXTS)
    ours = load(folder).tag(TEXTS, aggregation=strategy)
    assert sum(map(len, ours)) > len(TEXTS)
    for text, found, expected in zip(TEXTS, ours, theirs, strict=True):
        assert [(each["label"], each["start"], each["end"]) for each in found] == [
            (each["entity_group"], each["start"], each["end"]) for each in expected
        ]
        assert [each["score"] for each in found] == pytest.approx(
            [each["score"] for each in expected], abs=1e-5
        )
        assert all(each["text"] == text[each["start"] : each["end"]] for each in found)


def test_a_single_text_and_tokens(folder: Path) -> None:
    model = load(folder)
    assert model.tag(TEXTS[0], aggregation="simple") == model.tag(TEXTS, aggregation="simple")[0]
    tokens = model.tag(TEXTS[0])
    assert {each["label"] for each in tokens} <= set(LABELS)
    with pytest.raises(InputError, match="aggregation must be one of simple, .*, not 'word'"):
        model.tag(TEXTS[0], aggregation="word")


class TestRerank:
    @pytest.fixture(scope="class")
    def model(self, tiny_bert) -> Any:
        return load(tiny_bert("sequence-classification", num_labels=1))

    def test_order_and_scores(self, model: Any) -> None:
        documents = list(SENTENCES[:9])
        found = model.rerank("the old bridge", documents)
        pairs = [("the old bridge", each) for each in documents]
        scores = [each[0]["score"] for each in model.classify(pairs)]
        assert [each["index"] for each in found] == np.argsort([-s for s in scores]).tolist()
        for each in found:
            assert each["score"] == pytest.approx(scores[each["index"]], abs=1e-6)
            assert each["text"] == documents[each["index"]]
        assert model.rerank("the old bridge", documents, top_k=2) == found[:2]
        assert model.rerank("the old bridge", iter(documents)) == found

    def test_refusals(self, model: Any, tiny_bert) -> None:
        for documents in ("a text", [("a", "pair")]):
            with pytest.raises(InputError, match="documents must be a list of texts"):
                model.rerank("a", documents)
        with pytest.raises(InputError, match="top_k must be an integer of at least 1"):
            model.rerank("a", ["b"], top_k=0)
        with pytest.raises(InputError, match="query must be a string, not an int"):
            model.rerank(5, ["b"])
        with pytest.raises(InputError, match=r"documents\[1\] must be a string"):
            model.rerank("a", ["b", 5])
        with pytest.raises(InputError, match=r"documents\[1\] has \d+ tokens"):
            model.rerank("a", ["b", long_text(99)], strict=True)
        with pytest.raises(InputError, match="has 3 labels, but a reranker has one"):
            load(tiny_bert("sequence-classification")).rerank("a", ["b"])
        with pytest.raises(InputError, match="cannot classify"):
            load(tiny_bert()).rerank("a", ["b"])
