"""`evaluate --task retrieval` of SPLADE and ColBERT, beside sentence-transformers and by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pyarrow")
theirs = pytest.importorskip("sentence_transformers")

from embedding_folders import bge_m3, colbert, inference_free, splade
from sparsebert import evaluate, load, pack
from sparsebert.errors import DataError, EngineError
from tiny_models import TinyBert
from tiny_tasks import write_regression, write_retrieval

KINDS = {splade: "masked-lm", inference_free: "masked-lm", colbert: "encoder"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_retrieval(tmp_path_factory.mktemp("data"), validation=30, negatives=True)


def read_rows(data: Path) -> list[dict[str, str]]:
    lines = (data / "validation.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.filterwarnings("ignore:.*longer than", "ignore:Sparse CSR:UserWarning")
def test_as_the_library_finds(tiny_bert: TinyBert, tmp_path: Path, data: Path, make: Any) -> None:
    """The ranks of the documents that the library's own model gives, and every metric by hand."""
    model = make(tmp_path / "model", tiny_bert(KINDS[make]))
    encoder = (theirs.MultiVectorEncoder if make is colbert else theirs.SparseEncoder)(
        str(model), device="cpu"
    )
    rows = read_rows(data)
    queries = [row["query"] for row in rows]
    documents = [row[name] for name in ("document", "negative") for row in rows]
    assert len(set(queries)) == 30
    assert len(set(documents)) == 60
    similar = encoder.similarity(encoder.encode_query(queries), encoder.encode_document(documents))
    if getattr(similar, "is_sparse", False):
        similar = similar.to_dense()
    similar = np.asarray(similar, np.float64)
    # Of documents as near as the one looked for, all come before it.
    ranks = np.array([np.sum(row >= row[place] - 1e-5) for place, row in enumerate(similar)])
    found = evaluate(model, task="retrieval", data=data)
    assert found.scores["validation"] == pytest.approx(
        {
            "ndcg@10": 100 * np.mean(np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0)),
            "mrr@10": 100 * np.mean(np.where(ranks <= 10, 1 / ranks, 0)),
            "recall@1": 100 * np.mean(ranks == 1),
            "recall@10": 100 * np.mean(ranks <= 10),
        }
    )
    assert 0 < found.scores["validation"]["recall@10"] < 100
    assert found.notes == ["validation: 30 queries in a corpus of 60 documents."]
    pack(model, tmp_path / "packed")
    again = evaluate(tmp_path / "packed", task="retrieval", data=data, batch_size=3)
    assert again.scores == found.scores


@pytest.mark.filterwarnings("ignore:.*longer than")
def test_a_metric_of_the_users_own(tiny_bert: TinyBert, tmp_path: Path, data: Path) -> None:
    def first(expected: list[dict[str, float]], found: list[list[str]]) -> float:
        return 100 * float(np.mean([a[0] in b for a, b in zip(found, expected, strict=True)]))

    model = colbert(tmp_path / "model", tiny_bert())
    scores = evaluate(model, task="retrieval", data=data, metric=first).scores["validation"]
    assert scores["first"] == pytest.approx(scores["recall@1"])


def test_what_makes_dense_ones_too_is_scored_by_them(
    tiny_bert: TinyBert, tmp_path: Path, data: Path
) -> None:
    model = bge_m3(tmp_path / "m3", tiny_bert(model_type="xlm-roberta"))
    rows = read_rows(data)
    queries, documents = (
        load(model).embed(texts)
        for texts in (
            [row["query"] for row in rows],
            [row[name] for name in ("document", "negative") for row in rows],
        )
    )
    nearest = (queries @ documents.T).argmax(axis=1)
    scores = evaluate(model, task="retrieval", data=data).scores["validation"]
    assert scores["recall@1"] == pytest.approx(100 * np.mean(nearest == np.arange(30)))


def test_what_they_are_not_scored_by(tiny_bert: TinyBert, tmp_path: Path, data: Path) -> None:
    pairs = write_regression(tmp_path / "pairs")
    models = [make(tmp_path / make.__name__, tiny_bert(KINDS[make])) for make in (splade, colbert)]
    for model in models:
        with pytest.raises(
            EngineError, match="only the engine sparsebert can score: leave the engine out"
        ):
            evaluate(model, task="retrieval", data=data, engine="torch")
        for options in ({"task": "pairs"}, {"task": "stsb", "zero_shot": True}):
            with pytest.raises(DataError, match="searching documents: use --task retrieval"):
                evaluate(model, data=pairs, **options)
    with pytest.raises(DataError, match="sets the lengths .* leave max_length out"):
        evaluate(models[1], task="retrieval", data=data, max_length=16)
