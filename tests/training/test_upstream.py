"""Upstream pruning end to end on tiny models: the result, the zeros, and every way to stop."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("pyarrow")


from sentences import SENTENCES
from short_runs import assert_same_bits, weights
from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.diagnosis.records import read_training
from sparsebert.errors import (
    CheckpointError,
    DataError,
    OutputError,
    PatternError,
    SparsebertError,
    TrainingError,
)
from sparsebert.patterns import Pattern, is_whole
from sparsebert.pruning import inspect
from sparsebert.tasks.tokens import load_tokenizer
from sparsebert.training import prune_upstream
from sparsebert.training.trainer import ObjectiveTrainer
from sparsebert.training.upstream.corpus import read_corpus, tokenize_corpus
from tiny_models import TinyBert, make_tiny_bert
from tiny_tasks import letters, write_rows

# 50 texts, some of which are cut in two, and batches of 8: 7 steps an epoch, the last one short.
QUICK: dict[str, Any] = {
    "method": "magnitude",
    "epochs": 2,
    "batch_size": 8,
    "max_length": 24,
    "learning_rate": 1e-3,
    "pairs": 0.2,
    "precision": "fp32",
}
STEPS = 14


pytestmark = pytest.mark.usefixtures("short_garbage_collections")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("upstream") / "texts.txt"
    texts = list(dict.fromkeys([*SENTENCES, *(letters(random, "x") for _ in range(200))]))
    path.write_text("\n".join(texts[:50]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that says how it pools."""
    folder = make_tiny_bert(tmp_path_factory.mktemp("embedder") / "model")
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.{kind}"}
        for place, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    return folder


@pytest.fixture(scope="module")
def whole(embedder: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "sparse"
    prune_upstream(embedder, out, corpus=corpus, **QUICK)
    return out


def at_step(step: int, act: Callable[[], None]) -> Any:
    def progress(label: str, done: int, total: int) -> None:
        if label == "distilling" and done == step:
            act()

    return progress


def interrupt_at(step: int) -> Any:
    """A progress that presses Ctrl-C after this optimiser step."""
    return at_step(step, lambda: signal.raise_signal(signal.SIGINT))


class TestResult:
    def test_the_student_learned_and_the_zeros_held(self, whole: Path, embedder: Path) -> None:
        masks = read_masks(open_checkpoint(whole))
        assert len(masks) == 12
        dense, tensors = weights(embedder), weights(whole)
        assert tensors.keys() == dense.keys()
        for name, mask in masks.items():
            assert not tensors[name][~mask].view(np.int32).any(), name
            assert not np.array_equal(tensors[name][mask], dense[name][mask]), name
        assert inspect(whole).whole
        assert not np.array_equal(
            tensors["embeddings.word_embeddings.weight"], dense["embeddings.word_embeddings.weight"]
        )
        # The pooler takes no part.
        assert np.array_equal(tensors["pooler.dense.weight"], dense["pooler.dense.weight"])

        record = json.loads((whole / "training.json").read_text())
        assert (record["steps"], record["texts"]) == (STEPS, 50)
        assert 50 < record["rows"]["train"] <= 56  # some texts are cut in two
        losses = [point["loss"] for point in record["history"]]
        assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])

    def test_the_folder_says_how_it_was_made(self, whole: Path, corpus: Path) -> None:
        sparsity = json.loads((whole / "config.json").read_text())["sparsity"]
        assert (sparsity["pattern"], sparsity["method"]) == ("1:2", "magnitude")
        prune, distill = sparsity["lineage"]
        assert (prune["step"], distill["step"]) == ("prune", "distill")
        assert prune["from"] == distill["from"] == "model"
        assert distill["arguments"]["corpus"] == ["texts.txt"]
        assert distill["arguments"]["learning_rate"] == 1e-3
        written = "".join((whole / name).read_text() for name in ("config.json", "training.json"))
        assert str(corpus.parent) not in written
        assert (whole / "1_Pooling" / "config.json").is_file()
        assert "distill" in (whole / "README.md").read_text()
        assert not whole.with_name("sparse.training").exists()
        assert read_training(whole) is not None  # the doctor's reader
        transformers.AutoModel.from_pretrained(whole)

    def test_second_order_calibrates_on_the_corpus(
        self, embedder: Path, corpus: Path, tmp_path: Path
    ) -> None:
        settings = {**QUICK, "epochs": 0.2}
        del settings["method"]
        result = prune_upstream(embedder, tmp_path / "out", corpus=[corpus], **settings)
        assert result.method == "second-order"
        lineage = json.loads((tmp_path / "out" / "config.json").read_text())["sparsity"]["lineage"]
        assert lineage[0]["arguments"]["calibration"] == "corpus.txt"
        assert lineage[0]["arguments"]["calibration_rows"] == 50

    def test_rows_that_share_their_inputs(
        self, embedder: Path, corpus: Path, tmp_path: Path
    ) -> None:
        settings = {**QUICK, "epochs": 0.2, "method": "second-order", "shared_rows": 16}
        result = prune_upstream(embedder, tmp_path / "out", corpus=[corpus], **settings)
        assert result.pattern == "1:2 shared by 16 rows"
        checkpoint = open_checkpoint(tmp_path / "out")
        assert checkpoint.config.recorded_pattern == Pattern(1, 2, 16)
        assert all(is_whole(mask, Pattern(1, 2, 16)) for mask in read_masks(checkpoint).values())

    def test_or_on_texts_of_their_own(self, embedder: Path, corpus: Path, tmp_path: Path) -> None:
        write_rows(tmp_path / "own.jsonl", [{"text": text} for text in SENTENCES[:9]])
        settings = {**QUICK, "epochs": 0.2, "method": "wanda", "calibration_rows": 7}
        prune_upstream(
            embedder,
            tmp_path / "out",
            corpus=corpus,
            calibration=tmp_path / "own.jsonl",
            **settings,
        )
        lineage = json.loads((tmp_path / "out" / "config.json").read_text())["sparsity"]["lineage"]
        assert lineage[0]["arguments"]["calibration"] == "own.jsonl"
        assert lineage[0]["arguments"]["calibration_rows"] == 7

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (
                {"method": "magnitude", "calibration": "x.txt"},
                "magnitude does not calibrate: leave",
            ),
            ({"task": "sst2"}, "task 'sst2' only names the columns of calibration texts"),
        ],
    )
    def test_calibration_that_would_not_be_used(
        self, embedder: Path, corpus: Path, tmp_path: Path, options: Any, told: str
    ) -> None:
        with pytest.raises(DataError, match=told):
            prune_upstream(embedder, tmp_path / "out", corpus=corpus, **{**QUICK, **options})

    def test_frozen_embeddings_stay(self, embedder: Path, corpus: Path, tmp_path: Path) -> None:
        settings = {**QUICK, "epochs": 0.5, "embeddings": "frozen", "schedule": "cosine"}
        prune_upstream(embedder, tmp_path / "out", corpus=corpus, **settings)
        name = "embeddings.word_embeddings.weight"
        assert np.array_equal(weights(tmp_path / "out")[name], weights(embedder)[name])

    def test_only_used_embeddings_move(self, embedder: Path, corpus: Path, tmp_path: Path) -> None:
        settings = {**QUICK, "embeddings": "used"}
        prune_upstream(embedder, tmp_path / "out", corpus=corpus, **settings)
        name = "embeddings.word_embeddings.weight"
        before, after = weights(embedder)[name], weights(tmp_path / "out")[name]
        moved = np.flatnonzero((before != after).any(axis=1))
        tokens = tokenize_corpus(
            read_corpus([corpus]), load_tokenizer(embedder), max_length=24, pairs=0.2
        )
        assert np.array_equal(moved, np.unique(tokens.ids))
        assert len(moved) < len(before) - 1

    @pytest.mark.parametrize("tied", [True, False])
    def test_a_masked_lm_keeps_its_head(self, corpus: Path, tmp_path: Path, tied: bool) -> None:
        dense = make_tiny_bert(tmp_path / "dense", "masked-lm", tie_word_embeddings=tied)
        out = tmp_path / "out"
        settings = {**QUICK, "parts": ("encoder", "head")}
        result = prune_upstream(dense, out, corpus=corpus, **settings)
        assert result.history[-1]["loss"] < result.history[0]["loss"]
        assert result.layers == 13
        model, about = transformers.AutoModelForMaskedLM.from_pretrained(
            out, output_loading_info=True
        )
        assert not about["missing_keys"]
        assert not about["unexpected_keys"]
        assert weights(out).keys() == weights(dense).keys()
        head = model.cls.predictions.transform.dense.weight.detach().numpy()
        mask = read_masks(open_checkpoint(out))["cls.predictions.transform.dense.weight"]
        assert not head[~mask].any()
        before = weights(dense)["cls.predictions.transform.dense.weight"]
        assert not np.array_equal(head[mask], before[mask])

    @pytest.mark.parametrize(
        ("head", "settings"),
        [
            ("sequence-classification", {}),
            ("sequence-classification", {"problem_type": "multi_label_classification"}),
            ("sequence-classification", {"num_labels": 1, "problem_type": "regression"}),
            ("token-classification", {}),
            ("question-answering", {}),
        ],
    )
    def test_a_task_head_learns_with_its_zeros_locked(
        self, corpus: Path, tmp_path: Path, head: str, settings: dict[str, Any]
    ) -> None:
        dense, out = make_tiny_bert(tmp_path / "dense", head, **settings), tmp_path / "out"
        options = {**QUICK, "parts": ("encoder", "head")}
        result = prune_upstream(dense, out, corpus=corpus, **options)
        assert result.history[-1]["loss"] < result.history[0]["loss"]
        name = "qa_outputs.weight" if head.startswith("question") else "classifier.weight"
        mask = read_masks(open_checkpoint(out))[name]
        found, before = weights(out)[name], weights(dense)[name]
        assert not found[~mask].any()
        assert not np.array_equal(found[mask], before[mask])

    def test_a_head_without_weight_stays(
        self, tiny_bert: TinyBert, corpus: Path, tmp_path: Path
    ) -> None:
        dense, out = tiny_bert("sequence-classification"), tmp_path / "out"
        options = {**QUICK, "logits_weight": 0, "epochs": 0.2}
        prune_upstream(dense, out, corpus=corpus, **options)
        assert np.array_equal(
            weights(out)["classifier.weight"], weights(dense)["classifier.weight"]
        )


class TestTeacher:
    def test_a_student_goes_on_learning(
        self, embedder: Path, whole: Path, corpus: Path, tmp_path: Path
    ) -> None:
        options = {name: QUICK[name] for name in QUICK if name != "method"}
        options["learning_rate"] = 3e-4
        result = prune_upstream(
            whole, tmp_path / "more", corpus=corpus, teacher=embedder, **options
        )
        first = json.loads((whole / "training.json").read_text())["history"]
        assert result.history[-1]["loss"] < first[-1]["loss"]
        before, after = (read_masks(open_checkpoint(each)) for each in (whole, tmp_path / "more"))
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[name], after[name]) for name in before)
        assert inspect(tmp_path / "more").whole
        lineage = json.loads((tmp_path / "more" / "config.json").read_text())["sparsity"]["lineage"]
        assert [step["step"] for step in lineage] == ["prune", "distill", "distill"]
        assert lineage[-1]["from"] == "sparse"
        assert lineage[-1]["arguments"]["teacher"] == "model"
        assert (result.pattern, result.method) == ("1:2", "magnitude")

    def test_a_resumed_run_gives_the_same_bits(
        self, embedder: Path, whole: Path, corpus: Path, tmp_path: Path
    ) -> None:
        options = {name: QUICK[name] for name in QUICK if name != "method"}
        options |= {"corpus": corpus, "teacher": embedder}
        prune_upstream(whole, tmp_path / "whole", **options)
        with pytest.raises(KeyboardInterrupt):
            prune_upstream(whole, tmp_path / "out", progress=interrupt_at(5), **options)
        prune_upstream(whole, tmp_path / "out", resume=True, **options)
        assert_same_bits(tmp_path / "out", tmp_path / "whole")

    def test_what_does_not_fit(
        self, embedder: Path, whole: Path, tiny_bert: TinyBert, corpus: Path, tmp_path: Path
    ) -> None:
        out, options = tmp_path / "out", {"corpus": corpus, "max_length": 24}
        with pytest.raises(
            TrainingError, match="is dense, but with a teacher it must already be pruned"
        ):
            prune_upstream(embedder, out, teacher=embedder, **options)
        wider = tiny_bert("encoder", hidden_size=64)
        with pytest.raises(TrainingError, match="differ in shape or head"):
            prune_upstream(whole, out, teacher=wider, **options)
        with pytest.raises(TrainingError, match="leave method and calibration out"):
            prune_upstream(
                whole, out, teacher=embedder, method="wanda", calibration=corpus, **options
            )


class TestStopping:
    @pytest.mark.parametrize("step", [3, 7, 10])
    def test_a_resumed_run_gives_the_same_bits(
        self, embedder: Path, corpus: Path, whole: Path, tmp_path: Path, step: int
    ) -> None:
        out = tmp_path / "sparse"
        with pytest.raises(KeyboardInterrupt, match=rf"after step {step} of {STEPS}.*--resume"):
            prune_upstream(embedder, out, corpus=corpus, progress=interrupt_at(step), **QUICK)
        assert not out.exists()
        result = prune_upstream(embedder, out, corpus=corpus, resume=True, **QUICK)
        assert (result.resumed_from, result.steps) == (step, STEPS)
        assert_same_bits(out, whole)

    def test_masked_tokens_are_those_of_the_uninterrupted_run(
        self, tiny_bert: TinyBert, corpus: Path, tmp_path: Path
    ) -> None:
        dense = tiny_bert("masked-lm")
        prune_upstream(dense, tmp_path / "whole", corpus=corpus, **QUICK)
        out = tmp_path / "stopped"
        with pytest.raises(KeyboardInterrupt):
            prune_upstream(dense, out, corpus=corpus, progress=interrupt_at(9), **QUICK)
        prune_upstream(dense, out, corpus=corpus, resume=True, **QUICK)
        assert_same_bits(out, tmp_path / "whole")

    def test_an_unfinished_run_is_not_lost_by_mistake(
        self, embedder: Path, corpus: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "sparse"
        with pytest.raises(KeyboardInterrupt):
            prune_upstream(embedder, out, corpus=corpus, progress=interrupt_at(2), **QUICK)
        with pytest.raises(TrainingError, match="unfinished run"):
            prune_upstream(embedder, out, corpus=corpus, **QUICK)
        other = {**QUICK, "learning_rate": 2e-3}
        with pytest.raises(TrainingError, match=r"learning_rate was 0\.001 and is now 0\.002"):
            prune_upstream(embedder, out, corpus=corpus, resume=True, **other)

    def test_a_failed_run_leaves_nothing(
        self, embedder: Path, corpus: Path, tmp_path: Path
    ) -> None:
        def fail() -> None:
            raise RuntimeError("lightning")

        with pytest.raises(RuntimeError, match="lightning"):
            prune_upstream(
                embedder, tmp_path / "out", corpus=corpus, progress=at_step(2, fail), **QUICK
            )
        assert not list(tmp_path.iterdir())

    def test_half_the_batch_when_memory_runs_out(
        self,
        embedder: Path,
        corpus: Path,
        whole: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        loss = ObjectiveTrainer.compute_loss

        def greedy(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            if len(inputs["indices"]) > 4:
                raise MemoryError
            return loss(self, model, inputs, *rest, **named)

        monkeypatch.setattr(ObjectiveTrainer, "compute_loss", greedy)
        out = tmp_path / "out"
        result = prune_upstream(embedder, out, corpus=corpus, **QUICK)
        assert (result.batch_size, result.gradient_accumulation) == (4, 2)
        assert "continued with batches of 4" in result.notes[0]
        for name, values in weights(whole).items():
            assert np.allclose(weights(out)[name], values, atol=2e-3), name


class TestRefused:
    @pytest.mark.parametrize(
        ("wrong", "error", "message"),
        [
            ({"learning_rate": 0.0}, TrainingError, "learning_rate must be greater than 0"),
            ({"batch_size": 0}, TrainingError, "batch_size must be an integer of at least 1"),
            ({"pairs": 1.5}, TrainingError, "pairs must be"),
            ({"epochs": "3"}, TrainingError, "epochs must be a number, not '3'"),
            ({"batch_size": 2.0}, TrainingError, "batch_size must be an integer, not 2.0"),
            ({"hidden_weight": True}, TrainingError, "hidden_weight must be a number, not True"),
            ({"parts": "encoder"}, PatternError, "parts must be a list, not the text 'encoder'"),
            ({"parts": ["tail"]}, PatternError, "'tail' is not a part of a model"),
            ({"hidden_weight": -1.0}, TrainingError, "hidden_weight must be at least 0"),
            ({"precision": "fp8"}, TrainingError, "precision must be one of auto, fp32, bf16"),
            ({"max_length": 65}, TrainingError, "65 is too large: .* at most 64 tokens"),
            ({"method": "guessing"}, PatternError, "'guessing' is not a pruning method"),
            ({"method": "gradual"}, PatternError, "'gradual' is"),
            ({"pattern": "3:2"}, PatternError, "3:2"),
            ({"corpus": []}, DataError, "at least one file or folder"),
            ({"corpus": "nowhere.txt"}, DataError, "nowhere.txt"),
            ({"learning_rates": 1.0}, TrainingError, "'learning_rates' is not an option"),
        ],
    )
    def test_what_cannot_be(
        self,
        embedder: Path,
        corpus: Path,
        tmp_path: Path,
        wrong: dict[str, Any],
        error: type[SparsebertError],
        message: str,
    ) -> None:
        with pytest.raises(error, match=message):
            prune_upstream(embedder, tmp_path / "out", **{"corpus": corpus, **QUICK, **wrong})
        assert not list(tmp_path.iterdir())

    def test_a_folder_that_exists(self, embedder: Path, corpus: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        with pytest.raises(OutputError, match="exists"):
            prune_upstream(embedder, tmp_path / "out", corpus=corpus, **QUICK)

    @pytest.mark.parametrize("head", ["encoder", "masked-lm"])
    def test_nothing_to_learn_from(
        self, tiny_bert: TinyBert, corpus: Path, tmp_path: Path, head: str
    ) -> None:
        nothing = {"hidden_weight": 0}
        if head == "masked-lm":
            nothing |= {"masked_lm_weight": 0, "token_logits_weight": 0}
        with pytest.raises(
            TrainingError, match="hidden_weight .*are 0, so there is nothing to learn"
        ):
            prune_upstream(tiny_bert(head), tmp_path / "out", corpus=corpus, **{**QUICK, **nothing})

    def test_used_embeddings_of_a_masked_lm(
        self, tiny_bert: TinyBert, corpus: Path, tmp_path: Path
    ) -> None:
        settings = {**QUICK, "embeddings": "used"}
        with pytest.raises(TrainingError, match="all of them are used"):
            prune_upstream(tiny_bert("masked-lm"), tmp_path / "out", corpus=corpus, **settings)

    def test_a_masked_lm_without_a_mask_token(
        self, tiny_bert: TinyBert, corpus: Path, tmp_path: Path
    ) -> None:
        dense = tmp_path / "dense"
        make_tiny_bert(dense, "masked-lm")
        for path in dense.glob("token*"):
            path.unlink()
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"]
        tokenizer = transformers.BertTokenizerFast(
            vocab={word: index for index, word in enumerate(words)}, mask_token=None
        )
        tokenizer.save_pretrained(dense)
        with pytest.raises(CheckpointError, match=r"no \[MASK\] token"):
            prune_upstream(dense, tmp_path / "out", corpus=corpus, **QUICK)

    @pytest.mark.parametrize(
        ("sizes", "message"),
        [({"vocab_size": 90}, "gives token id"), ({"type_vocab_size": 1}, "token type id 1")],
    )
    def test_a_tokenizer_of_another_model(
        self, corpus: Path, tmp_path: Path, sizes: dict[str, int], message: str
    ) -> None:
        dense = make_tiny_bert(tmp_path / "dense")
        settings = transformers.BertConfig.from_pretrained(dense)
        settings.update(sizes)
        transformers.BertModel(settings).save_pretrained(dense)
        with pytest.raises(CheckpointError, match=message):
            prune_upstream(dense, tmp_path / "out", corpus=corpus, **QUICK)


class TestCommand:
    def test_prune_with_a_corpus(
        self, embedder: Path, corpus: Path, whole: Path, tmp_path: Path, run: Any
    ) -> None:
        options = "--method magnitude --epochs 2 --batch-size 8 --max-length 24 --pairs 0.2"
        options += " --precision fp32"
        out = tmp_path / "out"
        arguments = (embedder, out, "--corpus", corpus, *options.split(), "--learning-rate", 1e-3)
        code, told, progress = run("prune", *arguments, "--json")
        assert code == 0, progress
        assert json.loads(told)["steps"] == STEPS
        assert f"distilling: {STEPS}/{STEPS}" in progress
        assert_same_bits(out, whole)
        code, _, error = run("prune", *arguments)
        assert code == 1
        assert "exists" in error

    @pytest.mark.parametrize(
        "wrong",
        [
            ("--epochs", "2"),
            ("--resume",),
            ("--teacher", "dense"),
            ("--corpus", "c.txt", "--epochs", "0"),
            ("--corpus", "c.txt", "--precision", "fp8"),
            ("--corpus", "c.txt", "--embeddings", "melted"),
            ("--corpus", "c.txt", "--method", "gradual"),
        ],
    )
    def test_wrong_use_exits_with_2(self, run: Any, wrong: tuple[str, ...]) -> None:
        code, told, error = run("prune", "model", "out", *wrong)
        assert (code, told) == (2, "")
        assert "Usage: sparsebert" in error
