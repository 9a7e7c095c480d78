"""`sparsebert halve` of embedding models: judged by neighbours, scored pairs, or documents."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from sentence_folders import with_modules
from sentences import SENTENCES
from short_runs import FAST
from sparsebert import halve, load
from sparsebert.errors import InputError
from sparsebert.evaluation import evaluate
from sparsebert.halving.comparison import neighbours
from sparsebert.halving.embedding_judgement import judge_embedding
from sparsebert.halving.subject import recognise
from sparsebert.halving.texts import Gathered, divide_texts, gather
from tiny_models import TinyBert
from tiny_tasks import write_retrieval, write_rows


def test_texts(tiny_bert: TinyBert, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES))
    model = tiny_bert("encoder")
    result = halve(model, tmp_path / "out", texts=[tmp_path / "texts.txt"], **FAST)
    titles = [step.title for step in result.steps]
    assert titles == ["prune by second order", "distil", "pack to int8"]
    gathered = Gathered(list(dict.fromkeys(SENTENCES)), [], own=True)
    held = [str(text) for text in divide_texts(gathered, choose=True)[2]]
    assert result.judgement.rows == len(held)
    vectors = [load(each).embed(held) for each in (model, result.out)]
    cosines = np.sum(vectors[0] * vectors[1], 1) / np.prod(
        [np.linalg.norm(each, axis=1) for each in vectors], 0
    )
    told = result.judgement.more["cosine to the dense model, mean"]
    assert told == pytest.approx(cosines.mean(), abs=1e-6)


def test_without_texts(tiny_bert: TinyBert, tmp_path: Path) -> None:
    result = halve(tiny_bert("encoder"), tmp_path / "out", **FAST)
    assert [step.title for step in result.steps] == ["prune by second order", "pack to int8"]
    assert "no texts were given" in result.notes[0]


def test_the_nearest_neighbour_is_found_in_ten(tiny_bert: TinyBert) -> None:
    """Against brute force, with two encoders of other weights."""
    texts = [*SENTENCES, *(f"{a} {b}" for a, b in pairwise(SENTENCES))]
    dense, other = tiny_bert("encoder"), tiny_bert("encoder", seed=3)
    subject = recognise(dense)
    found = judge_embedding(
        subject, texts, texts, dense, other, threads=1, progress=lambda *_: None
    )
    near = []
    for model in (dense, other):
        vectors = load(model).embed(texts).astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        near.append(
            [
                sorted(set(range(len(texts))) - {row}, key=lambda one: -vectors[row] @ vectors[one])
                for row in range(len(texts))
            ]
        )
    hits = [a[0] in b[:10] for a, b in zip(*near, strict=True)]
    assert 0 < sum(hits) < len(hits)
    assert found.halved == pytest.approx(100 * np.mean(hits))
    shared = np.mean([len(set(a[:10]) & set(b[:10])) / 10 for a, b in zip(*near, strict=True)])
    assert found.more["10 nearest neighbours shared, %"] == pytest.approx(100 * shared)


def test_scored_pairs(tiny_bert: TinyBert, tmp_path: Path) -> None:
    rows = [
        {"sentence1": a, "sentence2": b, "score": float(place % 6)}
        for place, (a, b) in enumerate(zip(SENTENCES, reversed(SENTENCES), strict=True))
    ]
    write_rows(tmp_path / "data" / "train.jsonl", rows[:5])
    write_rows(tmp_path / "data" / "validation.jsonl", rows[5:10])
    result = halve(
        tiny_bert("encoder"), tmp_path / "out", data=tmp_path / "data", effort="quick", **FAST
    )
    assert result.judgement.metric == "spearman"
    assert not result.judgement.agreement


def test_queries_and_documents(tiny_bert: TinyBert, tmp_path: Path) -> None:
    """The promise is judged by what `evaluate` finds for both."""
    model = with_modules(tiny_bert("encoder"), tmp_path / "model", mode="cls", normalize=False)
    data = write_retrieval(tmp_path / "data", train=20, validation=30)
    result = halve(model, tmp_path / "out", data=data, effort="quick", **FAST)
    found = [
        evaluate(each, task="retrieval", data=data).scores["validation"]["ndcg@10"]
        for each in (model, tmp_path / "out")
    ]
    judged = result.judgement
    assert (judged.metric, judged.agreement, judged.rows) == ("ndcg@10", False, 30)
    assert [judged.dense, judged.halved] == pytest.approx(found, abs=0.01)
    assert judged.interval is not None
    assert judged.interval[0] <= found[1] - found[0] <= judged.interval[1]
    with pytest.raises(InputError, match="does not fit retrieval"):
        recognise(tiny_bert("sequence-classification"), data=data, task="retrieval")


def test_data_without_labels_joins_the_texts(tiny_bert: TinyBert, tmp_path: Path) -> None:
    write_rows(tmp_path / "more.jsonl", [{"text": text} for text in SENTENCES[4:]])
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES[:6]))
    subject = recognise(
        tiny_bert("encoder"), data=tmp_path / "more.jsonl", texts=[tmp_path / "texts.txt"]
    )
    assert gather(subject).texts == list(dict.fromkeys(SENTENCES))


def test_what_is_compared_on_is_not_learnt_from() -> None:
    texts = [f"text {row}" for row in range(95)]
    gathered = Gathered(list(texts), [], own=True)
    learnt, choice, report = divide_texts(gathered, choose=True)
    assert (len(choice), len(report)) == (10, 10)
    assert sorted([*learnt, *choice, *report]) == sorted(texts)
    learnt, choice, report = divide_texts(gathered, choose=False)
    assert choice == report
    assert sorted([*learnt, *report]) == sorted(texts)


def test_pairs_are_read_text_by_text(tiny_bert: TinyBert, tmp_path: Path) -> None:
    write_rows(tmp_path / "pairs.jsonl", [{"text1": "a b", "text2": "c d"}])
    (tmp_path / "texts.txt").write_text("a b\ne f\n")
    sources = [tmp_path / "pairs.jsonl", tmp_path / "texts.txt"]
    assert gather(recognise(tiny_bert("encoder"), texts=sources)).texts == ["a b", "c d", "e f"]


def test_neighbours_by_brute_force() -> None:
    vectors = np.random.default_rng(0).standard_normal((7, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for row, found in enumerate(neighbours(vectors @ vectors.T, 3)):
        others = [other for other in range(7) if other != row]
        others.sort(key=lambda other: -vectors[row] @ vectors[other])
        assert found.tolist() == others[:3]
