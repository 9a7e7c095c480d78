"""Embedding models that are fine-tuned: their losses beside sentence-transformers', whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

import sparsebert
from sentence_folders import with_modules
from short_runs import Crash, assert_same_bits, assert_zeros_held, crash_at
from sparsebert.checkpoint import open_checkpoint
from sparsebert.checkpoint.json_files import read_object
from sparsebert.errors import TrainingError
from sparsebert.evaluation import evaluate
from sparsebert.evaluation.torch_embedding import TorchEmbedder, TorchPooler
from sparsebert.progress import silent
from sparsebert.pruning import prune
from sparsebert.tasks.embedding_texts import TextReader
from sparsebert.tasks.examples import load_split
from sparsebert.tasks.own import find_task
from sparsebert.tasks.table import Kind
from sparsebert.training import finetune
from sparsebert.training.batches import LengthBuckets
from sparsebert.training.embedding.examples import EmbeddingExamples
from sparsebert.training.embedding.objective import EmbeddingObjective
from sparsebert.training.seeds import finetune_seeds
from tiny_models import TinyBert
from tiny_tasks import write_regression, write_retrieval, write_rows

RUN: dict[str, Any] = {"epochs": 2, "learning_rate": 1e-3, "batch_size": 8, "dropout": 0.0}
PROMPTS = {"prompts": {"query": "the wall: ", "document": "a "}}


@pytest.fixture(scope="module")
def folder(tiny_bert: TinyBert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse embedding model with prompts."""
    target = tmp_path_factory.mktemp("embedding")
    dense = with_modules(tiny_bert("encoder"), target / "dense", mode="mean", normalize=True)
    (dense / "config_sentence_transformers.json").write_text(json.dumps(PROMPTS))
    prune(dense, target / "sparse")
    return target


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_retrieval(tmp_path_factory.mktemp("retrieval"), negatives=True)


def examples_of(folder: Path, task: str, data: Path) -> tuple[EmbeddingExamples, TextReader]:
    reader = TextReader(folder, open_checkpoint(folder).config)
    rows = load_split(find_task(task, data), data, "train")
    return EmbeddingExamples.make(rows, reader, silent), reader


class TestLosses:
    @pytest.mark.parametrize("task", ["pairs", "retrieval"])
    def test_beside_sentence_transformers(self, folder: Path, tmp_path: Path, task: str) -> None:
        pytest.importorskip("sentence_transformers")
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer import losses

        if task == "retrieval":
            rows = [  # no document twice, for theirs knows nothing of such
                {"anchor": f"a b {x}", "positive": f"{x} c d", "negative": f"e f g {x} {x}"}
                for x in "uvwxyz"
            ]
            names, prompts = ["anchor", "positive", "negative"], ["the wall: ", "a ", "a "]
        else:
            rows = [
                {"text1": f"a b {x}", "text2": f"c {x}", "score": place / 5}
                for place, x in enumerate("uvwxyz")
            ]
            names, prompts = ["text1", "text2"], ["", ""]
        write_rows(tmp_path / "train.jsonl", rows)
        examples, reader = examples_of(folder / "dense", task, tmp_path)
        model = TorchEmbedder.load(folder / "dense")._model
        objective = EmbeddingObjective(Kind(task), TorchPooler(reader.pooling), scale=20.0)
        found = objective.loss(model, examples.batch(range(6)), 6)
        theirs = SentenceTransformer(str(folder / "dense"), device="cpu")
        features = [
            theirs.tokenize([prompt + row[name] for row in rows])
            for name, prompt in zip(names, prompts, strict=True)
        ]
        loss: Any = (
            losses.MultipleNegativesRankingLoss(theirs, scale=20.0)
            if task == "retrieval"
            else losses.CosineSimilarityLoss(theirs)
        )
        labels = torch.tensor([row.get("score", 0.0) for row in rows])
        assert found.item() == pytest.approx(loss(features, labels).item(), rel=1e-4)

    def test_what_is_looked_for_elsewhere_is_passed_over(
        self, folder: Path, tmp_path: Path
    ) -> None:
        """Queries 0 and 1 are one; 2 looks for what 0 looks for; 3 is far away in the data."""
        rows = [("q", "p"), ("q", "r"), ("s", "p"), ("q", "far"), ("s", "other")]
        write_rows(
            tmp_path / "train.jsonl",
            [dict(zip(("query", "document"), r, strict=True)) for r in rows],
        )
        examples, _ = examples_of(folder / "dense", "retrieval", tmp_path)
        batch = examples.batch([0, 1, 2, 3])
        documents = batch["texts"][batch["documents"]]
        texts = {"p": 0, "r": 1, "far": 3}
        where = {
            name: int((documents == int(examples.texts[row, 1])).nonzero()[0, 0])
            for name, row in texts.items()
        }
        for row, wanted, passed in ((0, "p", "r far"), (1, "r", "p far"), (2, "p", "")):
            assert batch["wanted"][row] == where[wanted]
            expected = {where[name] for name in passed.split()}
            assert set(batch["passed_over"][row].nonzero().flatten().tolist()) == expected

    def test_steps_without_texts_in_common(self) -> None:
        random = np.random.default_rng(0)
        parts = random.integers(0, 400, size=(203, 2))
        buckets = LengthBuckets(random.integers(3, 30, size=203), 8, 1, parts)
        order = buckets.order()
        assert sorted(order) == list(range(203))
        shared = [
            len(np.unique(parts[order[start : start + 8]])) < parts[order[start : start + 8]].size
            for start in range(0, 200, 8)
        ]
        within = sum(first == second for first, second in parts.tolist())
        assert sum(shared) <= within + 1  # at the end there may be no other way
        alike = LengthBuckets(np.full(20, 3), 8, 1, np.zeros((20, 2), np.int64))
        assert sorted(alike.order()) == list(range(20))


class TestRuns:
    def test_retrieval(self, folder: Path, data: Path, tmp_path: Path) -> None:
        """It learns, its zeros stay, it resumes to the same bits, and others open it."""
        pytest.importorskip("sentence_transformers")
        from sentence_transformers import SentenceTransformer

        sparse = folder / "sparse"
        before = evaluate(sparse, task="retrieval", data=data).scores["validation"]
        arguments: dict[str, Any] = {"task": "retrieval", "data": data, **RUN, "epochs": 4}
        result = finetune(sparse, tmp_path / "out", **arguments)
        assert_zeros_held(tmp_path / "out", sparse)
        assert result.scores["validation"]["ndcg@10"] > before["ndcg@10"] + 2
        again = evaluate(tmp_path / "out", task="retrieval", data=data)
        assert again.scores["validation"] == pytest.approx(result.scores["validation"], abs=0.01)
        with pytest.raises(Crash):
            finetune(sparse, tmp_path / "other", progress=crash_at(20), **arguments)
        finetune(sparse, tmp_path / "other", resume=True, **arguments)
        assert_same_bits(tmp_path / "out", tmp_path / "other")
        opened = SentenceTransformer(str(tmp_path / "out"), device="cpu")
        assert opened.prompts["query"] == "the wall: "
        ours = sparsebert.load(tmp_path / "out").embed(["a b c"])
        np.testing.assert_allclose(opened.encode(["a b c"]), ours, atol=1e-5)

    def test_a_plain_encoder_becomes_an_embedding_model(
        self, tiny_bert: TinyBert, tmp_path: Path
    ) -> None:
        pytest.importorskip("sentence_transformers")
        from sentence_transformers import SentenceTransformer

        data = write_regression(tmp_path / "data", train=24, validation=16)
        result = finetune(tiny_bert("masked-lm"), tmp_path / "out", task="pairs", data=data, **RUN)
        assert any("mapped to cosines from 0 to 1" in note for note in result.notes)
        opened = open_checkpoint(tmp_path / "out")
        assert opened.pooling is not None
        assert not any(name.startswith(("cls", "pooler")) for name in opened.stored_name)
        theirs = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(["a b"])
        ours = sparsebert.load(tmp_path / "out").embed(["a b"])
        np.testing.assert_allclose(theirs, ours, atol=1e-5)

    def test_taught_by_its_dense_self(self, folder: Path, data: Path, tmp_path: Path) -> None:
        """Its embeddings come nearer to the teacher's; unlabelled texts and int8 join in."""
        sparse, dense = folder / "sparse", folder / "dense"
        write_rows(tmp_path / "more.jsonl", [{"text": f"a {x} b"} for x in "cdefghij"])
        result = finetune(
            sparse,
            tmp_path / "out",
            task="retrieval",
            data=data,
            teacher=dense,
            unlabelled=tmp_path / "more.jsonl",
            hidden_weight=0.1,
            attention_weight=0.1,
            quantize="int8",
            **{**RUN, "epochs": 3, "learning_rate": 3e-3},
        )
        assert any("8 unlabelled texts" in note for note in result.notes)
        assert_zeros_held(tmp_path / "out", sparse)
        lines = (data / "train.jsonl").read_text().splitlines()
        texts = [json.loads(line)["document"] for line in lines]
        vectors = {
            each: TorchEmbedder.load(each)(texts, prompt="a ")
            for each in (dense, sparse, tmp_path / "out")
        }
        apart = {each: np.square(vectors[each] - vectors[dense]).sum() for each in vectors}
        assert apart[tmp_path / "out"] < 0.7 * apart[sparse]

    def test_the_best_epoch_by_a_users_metric(
        self, folder: Path, data: Path, tmp_path: Path
    ) -> None:
        """One that likes the first epoch best; seeds record it as well."""
        calls = []

        def early(expected: Any, predicted: Any) -> float:
            calls.append(len(expected))
            return -float(len(calls))

        arguments: dict[str, Any] = {"task": "retrieval", "data": data, "metric": early, **RUN}
        arguments["epochs"] = 3
        result = finetune(folder / "sparse", tmp_path / "out", **arguments, early_stopping=1)
        assert "of step 6, which scored best on validation" in " ".join(result.notes)
        record = read_object(tmp_path / "out" / "training.json")
        assert record["arguments"]["metric"] == "early"
        assert result.row().endswith(f"/{float(-len(calls)):.3g}")
        assert "early (not percent)" in (tmp_path / "out" / "README.md").read_text()
        arguments["epochs"] = 0.2
        for _ in range(2):  # the second time they are there already
            found = finetune_seeds(folder / "sparse", tmp_path / "seeds", seeds=(1,), **arguments)
        assert "early" in found.seeds[1]["validation"]


class TestErrors:
    def test_refused(self, folder: Path, data: Path, tiny_bert: TinyBert, tmp_path: Path) -> None:
        pairs = write_regression(tmp_path / "pairs", train=8, validation=4)
        sparse = folder / "sparse"
        narrow = with_modules(
            tiny_bert("encoder", hidden_size=16), tmp_path / "narrow", mode="mean", normalize=True
        )
        plain = with_modules(tiny_bert("encoder"), tmp_path / "plain", mode="mean", normalize=True)
        for task, rows, options, message in (
            ("pairs", pairs, {"scale": 5.0}, "scale only applies to the task retrieval"),
            ("retrieval", data, {"teacher": narrow}, "16 wide and those of .* 32"),
            ("retrieval", data, {"teacher": plain}, "puts other prompts before texts"),
        ):
            with pytest.raises(TrainingError, match=message):
                finetune(sparse, tmp_path / "out", task=task, data=rows, **RUN, **options)
