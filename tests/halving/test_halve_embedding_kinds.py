"""Halved SPLADE, ColBERT and BGE-M3: judged by what sentence-transformers makes of both models.

The reference computes neighbours by brute force, of what the library's own torch model (dense) and
its interface over our engine (halved) give.
"""

from __future__ import annotations

import json
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pyarrow")
pytest.importorskip("accelerate")
theirs = pytest.importorskip("sentence_transformers")

from embedding_folders import bge_m3, colbert, inference_free, original_colbert, splade
from sentences import SENTENCES
from short_runs import FAST
from sparsebert import halve, load
from sparsebert.errors import CheckpointError, DataError, InputError
from sparsebert.evaluation.embeddings import check_searched, that_fit
from sparsebert.halving.effort import EFFORTS, Effort
from sparsebert.halving.run import commands
from sparsebert.halving.subject import recognise
from sparsebert.halving.texts import Gathered, divide_texts
from sparsebert.integrations.sentence_transformers import MultiVectorEncoder, SparseEncoder
from tiny_models import TinyBert
from tiny_tasks import write_retrieval, write_rows

TEXTS = [*SENTENCES, *(f"{a} {b}" for a, b in pairwise(SENTENCES))]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(TEXTS))
    return path


def nearest(similar: Any) -> list[list[int]]:
    """Of each text all others, the nearest first, by ``similar``, ``[queries, texts]``."""
    return [
        sorted(set(range(len(row))) - {place}, key=lambda other, row=row: -row[other])
        for place, row in enumerate(np.asarray(similar, np.float64))
    ]


def check_figures(judged: Any, dense: Any, halved: Any, cosines: Any) -> None:
    """``dense`` and ``halved`` are similarities of the texts held out to all texts."""
    near = [nearest(each) for each in (dense, halved)]
    hits = [a[0] in b[:10] for a, b in zip(*near, strict=True)]
    shared = [len(set(a[:10]) & set(b[:10])) / 10 for a, b in zip(*near, strict=True)]
    assert judged.metric == "recall of the nearest neighbour in 10"
    assert judged.rows == len(hits)
    assert judged.halved == pytest.approx(100 * np.mean(hits))
    told = judged.more
    assert told["10 nearest neighbours shared, %"] == pytest.approx(100 * np.mean(shared), abs=0.1)
    assert told["cosine to the dense model, mean"] == pytest.approx(np.mean(cosines), abs=1e-4)
    assert told["cosine to the dense model, lowest"] == pytest.approx(np.min(cosines), abs=1e-4)


def texts_compared() -> tuple[list[str], list[str]]:
    """Those held out, and all, these first."""
    held = [str(text) for text in divide_texts(Gathered(TEXTS, [], own=True), choose=False)[2]]
    return held, [*held, *(text for text in TEXTS if text not in held)]


@pytest.mark.parametrize("make", [splade, inference_free])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")  # torch's own
def test_splade(tiny_bert: TinyBert, lines: Path, tmp_path: Path, make: Any) -> None:
    model = make(tmp_path / "splade", tiny_bert("masked-lm"))
    said: list[str] = []
    options = {**FAST, "effort": "quick", "said": said.append}
    result = halve(model, tmp_path / "out", texts=[lines], **options)
    assert "is a model for sparse embeddings (SPLADE) (bert, 2 x 32)" in said[0]
    assert said[1].startswith("It is judged by how close its sparse embeddings stay")
    held, texts = texts_compared()
    vectors, similar = [], []
    for each in (
        theirs.SparseEncoder(str(model), device="cpu"),
        SparseEncoder(tmp_path / "out"),
    ):
        documents = each.encode_document(texts).to_dense().numpy().astype(np.float64)
        queries = each.encode_query(held).to_dense().numpy().astype(np.float64)
        vectors.append(documents / np.linalg.norm(documents, axis=1, keepdims=True))
        similar.append(queries @ documents.T)  # by the scalar product
    cosines = np.sum(vectors[0] * vectors[1], axis=1)[: len(held)]
    check_figures(result.judgement, *similar, cosines)


@pytest.mark.filterwarnings("ignore:.*longer than")
def test_colbert(tiny_bert: TinyBert, lines: Path, tmp_path: Path) -> None:
    model = colbert(tmp_path / "colbert", tiny_bert())
    result = halve(model, tmp_path / "out", texts=[lines], effort="quick", **FAST)
    held, texts = texts_compared()
    similar, documents = [], []
    for each in (
        theirs.MultiVectorEncoder(str(model), device="cpu"),
        MultiVectorEncoder(tmp_path / "out"),
    ):
        documents.append(each.encode_document(texts))
        similar.append(each.similarity(each.encode_query(held), documents[-1]).numpy())
    cosines = [
        np.sum(np.asarray(one) * np.asarray(other), axis=1).mean()
        for one, other in zip(*(each[: len(held)] for each in documents), strict=True)
    ]
    check_figures(result.judgement, *similar, cosines)


@pytest.mark.filterwarnings("ignore:.*longer than")
def test_bge_m3(tiny_bert: TinyBert, lines: Path, tmp_path: Path) -> None:
    """Judged by its dense embeddings; what became of the others is told beside them."""
    model = bge_m3(tmp_path / "m3", tiny_bert(model_type="xlm-roberta"))
    result = halve(model, tmp_path / "out", texts=[lines], effort="quick", **FAST)
    held, texts = texts_compared()
    both = [load(each).embed_hybrid(texts) for each in (model, tmp_path / "out")]
    dense = [np.stack([each.dense for each in found]) for found in both]
    similar = [each[: len(held)] @ each.T for each in dense]
    check_figures(result.judgement, *similar, np.sum(dense[0] * dense[1], axis=1)[: len(held)])
    sparse, tokens = [], []
    for one, other in list(zip(*both, strict=True))[: len(held)]:
        mine, others = one.sparse.as_dict(), other.sparse.as_dict()
        product = sum(weight * others.get(token, 0) for token, weight in mine.items())
        norms = [np.linalg.norm(each.sparse.values) for each in (one, other)]
        sparse.append(product / np.prod(norms))
        tokens.append(np.sum(one.tokens * other.tokens, axis=1).mean())
    for kind, cosines in (("sparse", sparse), ("token", tokens)):
        name = f"{kind} embeddings, cosine to the dense model, mean"
        assert result.judgement.more[name] == pytest.approx(np.mean(cosines), abs=1e-4)


@pytest.mark.parametrize("make", [inference_free, colbert])
@pytest.mark.filterwarnings("ignore:.*longer than")
def test_queries_and_documents(tiny_bert: TinyBert, tmp_path: Path, make: Any) -> None:
    """The nDCG of what the library finds with either model, by scikit-learn."""
    from sklearn.metrics import ndcg_score

    model = make(tmp_path / "model", tiny_bert("encoder" if make is colbert else "masked-lm"))
    data = write_retrieval(tmp_path / "data", train=20, validation=30)
    said: list[str] = []
    options = {**FAST, "effort": "quick", "said": said.append}
    judged = halve(model, tmp_path / "out", data=data, **options).judgement
    assert said[1] == "It is judged by the documents that it finds for the data's queries."
    assert (judged.metric, judged.agreement, judged.rows) == ("ndcg@10", False, 30)
    lines = (data / "validation.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    queries, documents = ([row[name] for row in rows] for name in ("query", "document"))
    assert len(set(queries)) == len(set(documents)) == len(rows)
    classes = (theirs.MultiVectorEncoder, MultiVectorEncoder)
    if make is not colbert:
        classes = (theirs.SparseEncoder, SparseEncoder)
    for score, encoder in zip(
        (judged.dense, judged.halved),
        (classes[0](str(model), device="cpu"), classes[1](tmp_path / "out")),
        strict=True,
    ):
        similar = encoder.similarity(
            encoder.encode_query(queries), encoder.encode_document(documents)
        )
        expected = 100 * ndcg_score(np.eye(len(rows)), np.asarray(similar), k=10)
        assert score == pytest.approx(expected, abs=0.1)


def test_documents_that_do_not_fit(
    tiny_bert: TinyBert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(colbert(tmp_path / "colbert", tiny_bert()))
    check_searched(model, TEXTS, "tokens")
    monkeypatch.setattr("sparsebert.evaluation.embeddings._MOST_SEARCHED", 1000)
    check_searched(model, TEXTS, "dense")
    with pytest.raises(DataError, match="the 39 documents of the data are too many to hold"):
        check_searched(model, TEXTS, "tokens")


@pytest.mark.thorough
@pytest.mark.parametrize("make", [splade, colbert, original_colbert, bge_m3])
@pytest.mark.filterwarnings("ignore:.*longer than")
def test_distilled_they_are_nearer(
    tiny_bert: TinyBert, tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Enough texts for steps that learn something: what a handful does is luck.
    lines = tmp_path / "texts.txt"
    lines.write_text("\n".join(f"{a} {b}" for a, b in permutations(SENTENCES, 2)))
    base = {
        splade: {"head": "masked-lm"},
        bge_m3: {"model_type": "xlm-roberta"},
    }
    model = make(tmp_path / "model", tiny_bert(**base.get(make, {})))
    monkeypatch.setitem(EFFORTS, "none", Effort("none", 0, 0, 0, 0))
    found = [
        halve(model, tmp_path / effort, texts=[lines], effort=effort, **FAST).judgement
        for effort in ("none", "standard")
    ]
    cosines = [each.more["cosine to the dense model, mean"] for each in found]
    assert cosines[1] > cosines[0]


def test_what_they_do_not_take(tiny_bert: TinyBert, lines: Path, tmp_path: Path) -> None:
    model = splade(tmp_path / "splade", tiny_bert("masked-lm"))
    write_rows(
        tmp_path / "pairs.jsonl",
        [{"sentence1": a, "sentence2": b, "score": 0.5} for a, b in pairwise(SENTENCES)],
    )
    subject = recognise(model, data=tmp_path / "pairs.jsonl")
    assert subject.said[-1] == "Only the texts of the data are read, not its labels."
    with pytest.raises(InputError, match="judged on texts, or on queries and documents: leave"):
        recognise(model, data=tmp_path / "pairs.jsonl", task="pairs")
    # The distillation must not have it unlearn what its sparse embeddings are made of.
    distil = commands(model, tmp_path / "out", texts=[lines])[1][1]
    assert "--masked-lm-weight 0 --token-logits-weight 0" in distil
    routed = tmp_path / "splade" / "1_SpladePooling" / "config.json"
    routed.write_text(json.dumps({"pooling_strategy": "mean"}))
    with pytest.raises(CheckpointError, match="'mean' is not supported; use one of max, sum"):
        recognise(model, texts=[lines])
    expanded = colbert(tmp_path / "colbert", tiny_bert(model_type="deberta-v2"))
    with pytest.raises(CheckpointError, match="does not support for DeBERTa"):
        recognise(expanded, texts=[lines])


def test_texts_that_fit_into_memory(
    tiny_bert: TinyBert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(colbert(tmp_path / "colbert", tiny_bert()))
    tokens = [len(model.tokenizer.backend.encode(text).ids) for text in TEXTS[:5]]
    monkeypatch.setattr("sparsebert.evaluation.embeddings._MOST_NUMBERS", 12 * sum(tokens[:4]))
    assert that_fit(model, TEXTS, "tokens") == 4
    assert that_fit(model, TEXTS, "dense") == len(TEXTS)
    monkeypatch.setattr("sparsebert.evaluation.embeddings._MOST_NUMBERS", 1)
    assert that_fit(model, TEXTS, "tokens") == 1
