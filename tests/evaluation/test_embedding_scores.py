"""Scores of embeddings: retrieval by hand and beside scikit-learn, whole models beside others."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from sentence_folders import with_modules
from sparsebert import load
from sparsebert.checkpoint import Prompts
from sparsebert.errors import CheckpointError, DataError
from sparsebert.evaluation import evaluate
from sparsebert.evaluation.embedding_scores import find_documents
from sparsebert.evaluation.retrieval import products, query_scores, retrieval_scores, search
from sparsebert.evaluation.torch_embedding import pool, pooled_tokens
from sparsebert.inference.pooling import POOLING_MODES, pool_tokens
from sparsebert.tasks.examples import Examples
from sparsebert.tasks.own import UNREAD
from sparsebert.tasks.table import Kind
from tiny_models import TinyBert
from tiny_tasks import write_regression, write_retrieval, write_rows


def ranked(order: list[int], relevant: dict[int, float], documents: int) -> Any:
    """A search of one query whose documents come in this order, the others behind them."""
    vectors = np.zeros((documents, 1))
    vectors[:, 0] = -1
    for rank, index in enumerate(order):
        vectors[index, 0] = 1 - rank / 100
    names = [str(index) for index in range(documents)]
    return search(["q"], names, [relevant], [()], products(np.ones((1, 1)), vectors))


class TestMetrics:
    def test_by_hand(self) -> None:
        # Looked for are 3 (relevance 2) and 7 (1), at ranks 2 and 4.
        found = ranked([0, 3, 1, 7], {3: 2.0, 7: 1.0}, 20)
        dcg = 2 / math.log2(3) + 1 / math.log2(5)
        ideal = 2 / math.log2(2) + 1 / math.log2(3)
        assert query_scores("ndcg@10", found)[0] == pytest.approx(dcg / ideal)
        assert query_scores("mrr@10", found)[0] == 1 / 2
        assert query_scores("recall@1", found)[0] == 0
        assert query_scores("recall@3", found)[0] == 1 / 2
        assert query_scores("recall@10", found)[0] == 1
        # Eleven looked for and ten places: the best ranking fills all of them.
        many = ranked(list(range(11)), dict.fromkeys(range(11), 1.0), 20)
        assert query_scores("ndcg@10", many)[0] == pytest.approx(1)
        assert query_scores("recall@10", many)[0] == pytest.approx(10 / 11)
        late = ranked(list(range(12)), {11: 1.0}, 20)
        assert retrieval_scores(("ndcg@10", "mrr@10"), late).values == {"ndcg@10": 0, "mrr@10": 0}

    def test_beside_scikit_learn(self) -> None:
        from sklearn.metrics import ndcg_score

        random = np.random.default_rng(0)
        queries, documents = random.normal(size=(30, 5)), random.normal(size=(40, 5))
        grades = random.integers(0, 4, size=(30, 40)) * (random.random((30, 40)) < 0.2)
        grades[:, 0] = 1
        relevant = [{i: float(v) for i, v in enumerate(row) if v} for row in grades]
        names = [str(index) for index in range(40)]
        found = search(names[:30], names, relevant, [()] * 30, products(queries, documents))
        expected = ndcg_score(grades, queries @ documents.T, k=10)
        assert query_scores("ndcg@10", found).mean() == pytest.approx(expected)

    def test_what_tells_nothing_apart_finds_nothing(self) -> None:
        names = [str(index) for index in range(150)]
        alike = products(np.ones((2, 3)), np.ones((150, 3)))
        found = search(names[:2], names, [{0: 1.0}, {149: 1.0}], [()] * 2, alike)
        assert set(retrieval_scores(("ndcg@10", "mrr@10", "recall@10"), found).values.values()) == {
            0
        }


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_pooling_on_torch_without_the_prompt(mode: str) -> None:
    random = np.random.default_rng(1)
    states = random.normal(size=(3, 7, 4)).astype(np.float32)
    lengths, skipped = [7, 5, 2], [2, 0, 3]
    mask = torch.tensor([[int(place < length) for place in range(7)] for length in lengths])
    found = pool(torch.tensor(states), pooled_tokens(mask, torch.tensor(skipped)), (mode,))
    for row in range(3):
        expected = pool_tokens(states[row, : lengths[row]], (mode,), skipped[row])
        np.testing.assert_allclose(found[row].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_pairs_are_scored_as_zero_shot(tiny_bert: TinyBert, tmp_path: Path) -> None:
    data = write_regression(tmp_path, train=4, validation=30)
    for engine in ("torch", "sparsebert"):
        pairs = evaluate(tiny_bert("encoder"), task="pairs", data=data, engine=engine)
        zero = evaluate(tiny_bert("encoder"), task="stsb", data=data, engine=engine, zero_shot=True)
        assert pairs.scores["validation"] == pytest.approx(zero.scores["validation"], abs=1e-9)
        assert pairs.row().startswith("pairs (Spearman/Pearson): ")


class TestRetrieval:
    def test_both_engines_as_sentence_transformers(
        self, tiny_bert: TinyBert, tmp_path: Path
    ) -> None:
        """Prompts of queries and documents, pooling, corpus and metrics are the library's."""
        pytest.importorskip("sentence_transformers")
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.evaluation import (
            InformationRetrievalEvaluator,
        )

        folder = with_modules(
            tiny_bert("encoder"), tmp_path / "model", mode="mean", normalize=False
        )
        prompts = {"query": "the wall: ", "document": "a "}
        settings = {"prompts": prompts, "default_prompt_name": None}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
        data = write_retrieval(tmp_path / "data", validation=30, negatives=True)
        rows = [json.loads(line) for line in (data / "validation.jsonl").read_text().splitlines()]
        corpus = {row[name]: row[name] for row in rows for name in ("document", "negative")}
        evaluator = InformationRetrievalEvaluator(
            {row["query"]: row["query"] for row in rows},
            corpus,
            {row["query"]: {row["document"]} for row in rows},
            precision_recall_at_k=[1, 10],
        )
        theirs = evaluator(SentenceTransformer(str(folder), device="cpu"))
        expected = {
            name: 100 * theirs[f"cosine_{name}"]
            for name in ("ndcg@10", "mrr@10", "recall@1", "recall@10")
        }
        for engine in ("torch", "sparsebert"):
            found = evaluate(folder, task="retrieval", data=data, engine=engine)
            assert found.scores == {"validation": pytest.approx(expected, abs=1e-3)}
            assert found.notes == ["validation: 30 queries in a corpus of 60 documents."]

    def test_of_a_selection_of_queries_all_documents_count(
        self, tiny_bert: TinyBert, tmp_path: Path
    ) -> None:
        letters = [chr(97 + place) for place in range(20)]
        data = tmp_path / "beir"
        write_rows(data / "corpus.jsonl", ({"_id": f"d{x}", "text": x} for x in letters))
        write_rows(data / "queries.jsonl", ({"_id": f"q{x}", "text": f"q {x}"} for x in letters))
        wanted = {f"q {x}": [x, letters[place - 1]] for place, x in enumerate(letters)}
        lines = [f"q{query[2:]}\td{x}\t1" for query, documents in wanted.items() for x in documents]
        (data / "qrels").mkdir()
        judged = "\n".join(["query-id\tcorpus-id\tscore", *lines])
        (data / "qrels" / "dev.tsv").write_text(judged, encoding="utf-8")
        seen: list[dict[str, float]] = []

        def first(expected: list[dict[str, float]], found: list[list[str]]) -> float:
            seen.extend(expected)
            return 0.0

        options = {"task": "retrieval", "data": data, "metric": first, "max_rows": 9}
        assert evaluate(tiny_bert("encoder"), **options).rows == {"validation": 8}
        assert len(seen) == 4
        assert all(sorted(each) in map(sorted, wanted.values()) for each in seen)

    def test_the_memory_that_a_corpus_takes(self) -> None:
        """One matrix of float64, however many documents there are."""
        vectors = np.random.default_rng(0).normal(size=(20_001, 256)).astype(np.float32)

        def embed(texts: Sequence[str], *, prompt: str | None = None) -> Any:
            return vectors[[int(text) for text in texts]]

        documents = tuple(map(str, range(1, len(vectors))))
        task = replace(UNREAD, kind=Kind.RETRIEVAL, metrics=("recall@1",))
        labels = np.ones(1, np.float32)
        examples = Examples(task, "test", "", ["0"], ["7"], labels, ["0"], corpus=documents)
        tracemalloc.start()
        found = find_documents(examples, embed, Prompts(), similarity="dot")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 1.5 * 8 * vectors.size
        nearest = np.argsort(-(vectors[1:] @ vectors[0]))[:3] + 1
        assert found.in_words()[1][0][:3] == [str(each) for each in nearest]

    def test_a_query_does_not_find_itself(self, tiny_bert: TinyBert, tmp_path: Path) -> None:
        """In data such as Quora's and ArguAna's the queries are documents too, by their ids."""
        random = np.random.default_rng(3)
        texts = [" ".join(random.permutation(list("abcdefgh"))[:5]) for _ in range(40)]
        assert len(set(texts)) == 40
        queries = [*texts[:14], "a b"]  # the last is another text than document 14
        data = tmp_path / "beir"
        write_rows(
            data / "corpus.jsonl",
            ({"_id": str(n), "text": x, "title": "c d"} for n, x in enumerate(texts)),
        )
        write_rows(
            data / "queries.jsonl", ({"_id": str(n), "text": x} for n, x in enumerate(queries))
        )
        (data / "qrels").mkdir()
        lines = [f"{place}\t{20 + place}\t1" for place in range(15)]
        judged = "\n".join(["query-id\tcorpus-id\tscore", *lines])
        (data / "qrels" / "dev.tsv").write_text(judged, encoding="utf-8")
        model = load(tiny_bert("encoder"))
        asked, found = model.embed(queries), model.embed([f"c d {text}" for text in texts])
        similar = asked @ found.T / np.outer(*(np.linalg.norm(x, axis=1) for x in (asked, found)))
        similar[range(14), range(14)] = -1
        ranks = [1 + np.sum(row > row[20 + place]) for place, row in enumerate(similar)]
        expected = 100 * np.mean([1 / rank if rank <= 10 else 0 for rank in ranks])
        scores = evaluate(tiny_bert("encoder"), task="retrieval", data=data).scores["validation"]
        assert scores["mrr@10"] == pytest.approx(expected)

    def test_by_scalar_product_where_the_folder_says_so(
        self, tiny_bert: TinyBert, tmp_path: Path
    ) -> None:
        folder = with_modules(tiny_bert("encoder"), tmp_path / "model", mode="cls", normalize=False)
        data = write_retrieval(tmp_path / "data", validation=30)
        file = folder / "config_sentence_transformers.json"
        found = {}
        for name in ("cosine", "dot"):
            file.write_text(json.dumps({"similarity_fn_name": name}))
            found[name] = evaluate(folder, task="retrieval", data=data).scores
        assert found["cosine"] != found["dot"]
        file.write_text(json.dumps({"similarity_fn_name": "euclidean"}))
        with pytest.raises(CheckpointError, match="searched by cosine or dot"):
            evaluate(folder, task="retrieval", data=data)


class TestUserMetric:
    def test_what_it_gets(self, tiny_bert: TinyBert, tmp_path: Path) -> None:
        seen: dict[str, Any] = {}

        def share(expected: Any, predicted: Any) -> float:
            seen["expected"], seen["predicted"] = expected, predicted
            return 0.25

        data = write_retrieval(tmp_path / "data", validation=5)
        found = evaluate(tiny_bert("encoder"), task="retrieval", data=data, metric=share)
        assert found.scores["validation"]["share"] == 0.25
        row = json.loads((data / "validation.jsonl").read_text().splitlines()[0])
        assert seen["expected"][0] == {row["document"]: 1.0}
        assert sorted(seen["predicted"][0]) == sorted(
            json.loads(line)["document"]
            for line in (data / "validation.jsonl").read_text().splitlines()
        )
        rows = [{"text": "a b", "label": 0}, {"text": "b", "label": 1}]
        write_rows(tmp_path / "classes/validation.jsonl", rows)
        model = tiny_bert("sequence-classification", num_labels=2)
        evaluate(model, task="custom", data=tmp_path / "classes", metric=share)
        assert seen["expected"] == ["0", "1"]
        assert set(seen["predicted"]) <= {"0", "1"}

    def test_refused(self, tiny_bert: TinyBert, tmp_path: Path) -> None:
        data = write_regression(tmp_path, train=4, validation=9)

        def spearman(expected: Any, predicted: Any) -> float:
            return 0.0

        def words(expected: Any, predicted: Any) -> Any:
            return "good"

        for metric, message in (
            (lambda expected, predicted: 0.0, "no name to record"),
            (spearman, "already has a metric spearman"),
            (words, "the metric words must return a number, but returned 'good'"),
            (3, "must be a function"),
        ):
            with pytest.raises(DataError, match=message):
                evaluate(tiny_bert("encoder"), task="pairs", data=data, metric=metric)
