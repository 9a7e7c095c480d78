"""Fine-tuning end to end on tiny models: the zeros, the head, the seed, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from safetensors import SafetensorError
from safetensors.numpy import save_file

from short_runs import (
    QUICK,
    STEPS,
    assert_same_bits,
    assert_zeros_held,
    weights,
)
from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.errors import (
    CheckpointError,
    DataError,
    MissingExtraError,
    OutputError,
    PatternError,
    TrainingError,
)
from sparsebert.evaluation import evaluate
from sparsebert.pruning import prune
from sparsebert.pruning.inspection import inspect
from sparsebert.training import finetune
from sparsebert.training.locked_masks import LockedMasksCallback
from sparsebert.training.trainer import ObjectiveTrainer
from tiny_tasks import write_classification, write_regression, write_rows, write_squad

pytestmark = pytest.mark.usefixtures("short_garbage_collections")


class TestResult:
    def test_the_folder_is_whole_and_any_tool_loads_it(
        self, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "task"
        result = finetune(sparse, out, data=data, **QUICK)
        assert_zeros_held(out, sparse)
        assert (result.steps, result.rows, result.resumed_from) == (STEPS, 60, 0)
        assert result.row().startswith("custom (accuracy/F1): ")

        config = json.loads((out / "config.json").read_text())
        assert config["architectures"] == ["BertForSequenceClassification"]
        assert config["id2label"] == {"0": "no", "1": "yes"}
        assert config["problem_type"] == "single_label_classification"
        steps = config["sparsity"]["lineage"]
        assert [step["step"] for step in steps] == ["prune", "finetune"]
        assert steps[1]["arguments"]["seed"] == 1
        assert steps[1]["arguments"]["task"] == "custom"
        assert str(tmp_path) not in (out / "config.json").read_text()

        record = json.loads((out / "training.json").read_text())
        assert record["scores"] == result.scores
        assert record["rows"] == {"train": 60, "validation": 24}
        assert record["examples_per_second"] > 0
        assert all(np.isfinite(entry["loss"]) for entry in record["history"])
        assert record["history"][-1]["step"] == STEPS
        assert "| validation | accuracy |" in (out / "README.md").read_text()
        assert (out / "tokenizer.json").is_file()
        assert not (tmp_path / "task.training").exists()

        model = transformers.AutoModelForSequenceClassification.from_pretrained(out)
        assert model.config.label2id == {"no": 0, "yes": 1}
        scores = evaluate(out, task="custom", data=data, engine="torch").scores
        assert scores == result.scores

    def test_the_model_learns(self, sparse: Path, data: Path, tmp_path: Path) -> None:
        options = {**QUICK, "epochs": 12, "learning_rate": 3e-3, "dropout": 0.0}
        result = finetune(sparse, tmp_path / "out", data=data, **options)
        history = json.loads((tmp_path / "out" / "training.json").read_text())["history"]
        assert history[-1]["loss"] < 0.5 * history[0]["loss"]
        assert result.scores["validation"]["accuracy"] > 75
        assert_zeros_held(tmp_path / "out", sparse)

    def test_a_dense_model_goes_the_same_way(self, dense: Path, data: Path, tmp_path: Path) -> None:
        finetune(dense, tmp_path / "out", data=data, **QUICK)
        assert not (tmp_path / "out" / "masks.safetensors").exists()
        assert inspect(tmp_path / "out").whole
        config = json.loads((tmp_path / "out" / "config.json").read_text())
        assert config["sparsity"]["pattern"] is None
        assert [step["step"] for step in config["sparsity"]["lineage"]] == ["finetune"]

    def test_a_kept_weight_that_is_zero_stays_trainable(
        self, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        source = tmp_path / "source"
        source.mkdir()
        for path in sparse.iterdir():
            (source / path.name).write_bytes(path.read_bytes())
        name = "encoder.layer.0.intermediate.dense.weight"
        tensors = {key: np.array(value) for key, value in weights(sparse).items()}
        mask = read_masks(open_checkpoint(sparse))[name]
        row, column = np.argwhere(mask)[5]
        tensors[name][row, column] = 0.0
        save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
        finetune(source, tmp_path / "out", data=data, **QUICK)
        assert weights(tmp_path / "out")["bert." + name][row, column] != 0
        assert_zeros_held(tmp_path / "out", source)

    def test_a_model_that_another_tool_made_sparse(
        self, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        source = tmp_path / "source"
        source.mkdir()
        for path in sparse.iterdir():
            (source / path.name).write_bytes(path.read_bytes())
        (source / "masks.safetensors").unlink()
        config = json.loads((source / "config.json").read_text())
        layers = sorted(config.pop("sparsity")["layers"])
        (source / "config.json").write_text(json.dumps(config))
        finetune(source, tmp_path / "out", data=data, **QUICK)
        assert_zeros_held(tmp_path / "out", sparse)
        record = json.loads((tmp_path / "out" / "config.json").read_text())["sparsity"]
        assert (record["pattern"], record["layers"]) == ("1:2", layers)

    def test_a_source_whose_pattern_is_broken_is_refused(
        self, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        source = tmp_path / "source"
        source.mkdir()
        for path in sparse.iterdir():
            (source / path.name).write_bytes(path.read_bytes())
        name = "encoder.layer.0.output.dense.weight"
        tensors = {key: np.array(value) for key, value in weights(sparse).items()}
        tensors[name][:] = 1
        save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(PatternError, match=name):
            finetune(source, tmp_path / "out", data=data, **QUICK)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]

    def test_a_sentence_transformers_folder(self, minilm: Path, tmp_path: Path) -> None:
        data = write_classification(tmp_path / "data", train=4, validation=4)
        prune(minilm, tmp_path / "sparse")
        options = {**QUICK, "epochs": 1, "batch_size": 4, "max_length": 16}
        finetune(tmp_path / "sparse", tmp_path / "out", data=data, **options)
        assert_zeros_held(tmp_path / "out", tmp_path / "sparse")
        assert (tmp_path / "out" / "modules.json").is_file()
        assert open_checkpoint(tmp_path / "out").config.labels == ("no", "yes")


class TestTraining:
    @pytest.mark.parametrize("optimizer", ["sgd", "adafactor", "adamw"])
    def test_zeros_hold_for_every_optimiser(
        self, sparse: Path, data: Path, tmp_path: Path, optimizer: str
    ) -> None:
        options = {**QUICK, "learning_rate": 1e-2, "weight_decay": 0.1, "max_grad_norm": 0.5}
        out = tmp_path / "out"
        finetune(sparse, out, data=data, optimizer=optimizer, gradient_accumulation=2, **options)
        assert_zeros_held(out, sparse)
        name = "encoder.layer.0.output.dense.weight"
        mask = read_masks(open_checkpoint(sparse))[name]
        assert np.mean(weights(out)["bert." + name][mask] != weights(sparse)[name][mask]) > 0.99

    def test_without_the_lock_the_run_fails_and_names_the_layer(
        self, sparse: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(LockedMasksCallback, "on_train_begin", lambda *a, **k: None)
        monkeypatch.setattr(LockedMasksCallback, "on_optimizer_step", lambda *a, **k: None)
        with pytest.raises(TrainingError, match="no longer zero in 12 layers: encoder.layer.0.att"):
            finetune(sparse, tmp_path / "out", data=data, **QUICK)
        assert not (tmp_path / "out").exists()

    def test_the_same_seed_gives_the_same_weights(
        self, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        for name, seed in (("a", 3), ("b", 3), ("c", 4)):
            finetune(sparse, tmp_path / name, data=data, seed=seed, **QUICK)
        assert_same_bits(tmp_path / "a", tmp_path / "b")
        left, right = weights(tmp_path / "a"), weights(tmp_path / "c")
        assert not np.array_equal(left["classifier.weight"], right["classifier.weight"])

    def test_an_accumulated_step_is_one_large_batch(
        self, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        # In bf16 the rounding of a row depends on its company.
        options = {**QUICK, "dropout": 0.0, "optimizer": "sgd", "learning_rate": 0.1}
        options["precision"] = "fp32"
        finetune(sparse, tmp_path / "large", data=data, **options)
        small = {**options, "batch_size": 2, "gradient_accumulation": 4}
        finetune(sparse, tmp_path / "small", data=data, **small)
        left, right = weights(tmp_path / "large"), weights(tmp_path / "small")
        moved = max(
            float(np.abs(left["bert." + name] - before).max())
            for name, before in weights(sparse).items()
        )
        apart = max(float(np.abs(left[name] - right[name]).max()) for name in left)
        assert moved > 0.05
        assert apart < 1e-5

    def test_regression(self, sparse: Path, tmp_path: Path) -> None:
        folder = write_regression(tmp_path / "data")
        options = {**QUICK, "task": "stsb", "epochs": 12, "dropout": 0.0}
        result = finetune(sparse, tmp_path / "out", data=folder, **options)
        assert list(result.scores["validation"]) == ["pearson", "spearman"]
        assert result.scores["validation"]["pearson"] > 60
        config = open_checkpoint(tmp_path / "out").config
        assert (config.problem_type, len(config.labels)) == ("regression", 1)
        assert_zeros_held(tmp_path / "out", sparse)

    def test_question_answering(self, sparse: Path, tmp_path: Path) -> None:
        folder = write_squad(tmp_path / "data", train=60)
        options = {**QUICK, "task": "squad", "epochs": 10, "learning_rate": 3e-3, "dropout": 0.0}
        result = finetune(sparse, tmp_path / "out", data=folder, max_length=16, **options)
        assert list(result.scores["validation"]) == ["exact_match", "f1"]
        assert result.scores["validation"]["f1"] > 50
        config = json.loads((tmp_path / "out" / "config.json").read_text())
        assert config["architectures"] == ["BertForQuestionAnswering"]
        assert "id2label" not in config
        assert_zeros_held(tmp_path / "out", sparse)

    def test_a_pooler_that_the_head_does_not_use_takes_its_mask_along(
        self, dense: Path, tmp_path: Path
    ) -> None:
        prune(dense, tmp_path / "sparse", parts=("encoder", "pooler"))
        folder = write_squad(tmp_path / "data")
        options = {**QUICK, "task": "squad", "epochs": 1}
        finetune(tmp_path / "sparse", tmp_path / "out", data=folder, **options)
        found = open_checkpoint(tmp_path / "out")
        assert "pooler.dense.weight" not in found.config.recorded_layers
        assert len(read_masks(found)) == 12
        assert inspect(tmp_path / "out").whole

    def test_max_rows_are_the_same_for_every_seed(
        self, sparse: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []
        init = ObjectiveTrainer.__init__

        def spy(self: Any, **arguments: Any) -> None:
            seen.append(arguments["examples"].tokens.ids.tolist())
            init(self, **arguments)

        monkeypatch.setattr(ObjectiveTrainer, "__init__", spy)
        for seed in (1, 2):
            out = tmp_path / str(seed)
            result = finetune(sparse, out, data=data, seed=seed, max_rows=20, **QUICK)
            assert (result.rows, result.steps) == (20, 6)
        assert seen[0] == seen[1]

    def test_a_single_file_trains_without_validation(
        self, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        result = finetune(sparse, tmp_path / "out", data=data / "train.jsonl", **QUICK)
        assert result.scores == {}
        assert result.row() == ""
        with pytest.raises(DataError, match="early stopping needs a validation split"):
            finetune(sparse, tmp_path / "b", data=data / "train.jsonl", early_stopping=1, **QUICK)

    def test_dropout_is_overridden_for_the_run_alone(
        self, sparse: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rates = []
        init = ObjectiveTrainer.__init__

        def spy(self: Any, **arguments: Any) -> None:
            modules = arguments["model"].modules()
            rates.extend(m.p for m in modules if isinstance(m, torch.nn.Dropout))
            init(self, **arguments)

        monkeypatch.setattr(ObjectiveTrainer, "__init__", spy)
        finetune(sparse, tmp_path / "out", data=data, dropout=0.25, **QUICK)
        assert rates
        assert set(rates) == {0.25}
        config = json.loads((tmp_path / "out" / "config.json").read_text())
        assert config["hidden_dropout_prob"] == 0.1


class TestHead:
    def test_a_head_with_the_same_labels_is_kept(
        self, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        still = {**QUICK, "epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
        finetune(sparse, tmp_path / "first", data=data, **QUICK)
        kept = finetune(tmp_path / "first", tmp_path / "again", data=data, seed=9, **still)
        assert not any("head" in note for note in kept.notes)
        first, again = weights(tmp_path / "first"), weights(tmp_path / "again")
        assert np.allclose(first["classifier.weight"], again["classifier.weight"], atol=1e-9)
        record = json.loads((tmp_path / "again" / "training.json").read_text())
        assert record["fresh_head"] is False
        lineage = open_checkpoint(tmp_path / "again").config.sparsity["lineage"]  # type: ignore[index]
        assert [step["step"] for step in lineage] == ["prune", "finetune", "finetune"]

    def test_other_labels_get_a_fresh_one(self, sparse: Path, data: Path, tmp_path: Path) -> None:
        still = {**QUICK, "epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
        finetune(sparse, tmp_path / "first", data=data, **QUICK)
        other = tmp_path / "other"
        rows = [{"text": f"a b {label}", "label": label} for label in ("good", "bad")] * 8
        write_rows(other / "train.jsonl", rows)
        for seed in (1, 2):
            again = finetune(
                tmp_path / "first", tmp_path / f"s{seed}", data=other, seed=seed, **still
            )
            told = "the model's head for no, yes was replaced by a new one for bad, good."
            assert told in again.notes
        first = weights(tmp_path / "first")["classifier.weight"]
        one, two = (weights(tmp_path / f"s{seed}")["classifier.weight"] for seed in (1, 2))
        assert not np.allclose(first, one, atol=1e-4)
        assert not np.allclose(one, two, atol=1e-4)
        assert open_checkpoint(tmp_path / "s1").config.labels == ("bad", "good")

    def test_a_kept_heads_label_order_is_respected(self, sparse: Path, tmp_path: Path) -> None:
        """A head that calls class 0 positive goes on to mean positive by it."""
        rows = [{"sentence": f"a x b {row}", "label": 1} for row in range(10)]
        rows += [{"sentence": f"a y b {row}", "label": 0} for row in range(10)]
        for split in ("train", "validation"):
            write_rows(tmp_path / "data" / f"{split}.jsonl", rows)
        options = {**QUICK, "task": "sst2", "epochs": 8, "learning_rate": 3e-3, "dropout": 0.0}
        first = finetune(sparse, tmp_path / "first", data=tmp_path / "data", **options)
        assert first.scores["validation"]["accuracy"] == 100
        config = json.loads((tmp_path / "first" / "config.json").read_text())
        config["id2label"] = {"0": "POSITIVE", "1": "NEGATIVE"}
        config["label2id"] = {"POSITIVE": 0, "NEGATIVE": 1}
        (tmp_path / "first" / "config.json").write_text(json.dumps(config))
        found = evaluate(tmp_path / "first", task="sst2", data=tmp_path / "data", engine="torch")
        assert found.scores["validation"]["accuracy"] == 0  # mapped by name: all wrong now
        still = {**options, "epochs": 1, "learning_rate": 1e-12}
        again = finetune(tmp_path / "first", tmp_path / "again", data=tmp_path / "data", **still)
        assert again.scores["validation"]["accuracy"] == 0
        assert open_checkpoint(tmp_path / "again").config.labels == ("POSITIVE", "NEGATIVE")
        record = json.loads((tmp_path / "again" / "training.json").read_text())
        assert record["fresh_head"] is False
        assert min(each["loss"] for each in record["history"]) > 1  # sure, and wrong


class TestErrors:
    def test_a_diverged_run_says_so_and_leaves_nothing(
        self, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        options = {**QUICK, "learning_rate": 1e30, "max_grad_norm": 0.0, "optimizer": "sgd"}
        with pytest.raises(TrainingError, match="training has diverged. Lower the learning"):
            finetune(sparse, tmp_path / "out", data=data, **options)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("error", "where"),
        [
            (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos"), "torch"),
            (OSError(28, "No space left on device"), "torch"),
            (SafetensorError("Error while serializing: I/O error: No space left"), "safetensors"),
        ],
    )
    @pytest.mark.parametrize("epoch", [1, 2])
    def test_a_full_disk_loses_no_checkpoint(
        self,
        sparse: Path,
        data: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
        where: str,
        epoch: int,
    ) -> None:
        module, name = {
            "torch": (torch, "save"),
            "safetensors": (transformers.modeling_utils, "safe_save_file"),
        }[where]
        real, step = getattr(module, name), [0]

        def write(*arguments: Any, **more: Any) -> Any:
            if step[0] == 8 * epoch:
                raise error
            return real(*arguments, **more)

        def progress(label: str, done: int, total: int) -> None:
            step[0] = done if label == "fine-tuning" else 0

        out = tmp_path / "out"
        with monkeypatch.context() as full:
            full.setattr(module, name, write)
            with pytest.raises(OutputError, match="a checkpoint could not be written .*free some"):
                finetune(sparse, out, data=data, progress=progress, **QUICK)
        if epoch == 1:
            assert list(tmp_path.iterdir()) == []
        else:
            kept = sorted(path.name for path in (tmp_path / "out.training").iterdir())
            assert kept == ["checkpoint-8", "run.json"]
            assert finetune(sparse, out, data=data, resume=True, **QUICK).resumed_from == 8

    def test_a_full_disk_at_the_very_end_loses_no_training(
        self, sparse: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import sparsebert.training.saving as saving

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as lacking:
            lacking.setattr(saving, "write_tensors", full)
            with pytest.raises(OutputError, match="could not be written"):
                finetune(sparse, tmp_path / "out", data=data, **QUICK)
        result = finetune(sparse, tmp_path / "out", data=data, resume=True, **QUICK)
        assert (result.resumed_from, result.steps) == (STEPS, STEPS)
        finetune(sparse, tmp_path / "whole", data=data, **QUICK)
        assert_same_bits(tmp_path / "out", tmp_path / "whole")

    def test_an_existing_folder_is_kept(self, sparse: Path, data: Path, tmp_path: Path) -> None:
        finetune(sparse, tmp_path / "out", data=data, **QUICK)
        before = weights(tmp_path / "out")["classifier.weight"]
        with pytest.raises(OutputError, match="exists"):
            finetune(sparse, tmp_path / "out", data=data, seed=2, **QUICK)
        assert np.array_equal(weights(tmp_path / "out")["classifier.weight"], before)
        finetune(sparse, tmp_path / "out", data=data, seed=2, force=True, **QUICK)
        assert not np.array_equal(weights(tmp_path / "out")["classifier.weight"], before)

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("epochs", 0, "epochs must be greater than 0"),
            ("learning_rate", float("nan"), "learning_rate must be greater than 0"),
            ("batch_size", 0, "batch_size must be an integer of at least 1, not 0"),
            ("warmup_ratio", 1, "warmup_ratio must be at least 0 and below 1"),
            ("dropout", -0.1, "dropout must be at least 0 and below 1"),
            ("weight_decay", -1, "weight_decay must be at least 0"),
            ("max_rows", 0, "max_rows must be an integer of at least 1"),
            ("max_length", 4, "max_length must be an integer of at least 8"),
            ("early_stopping", -1, "early_stopping must be an integer of at least 0"),
            ("optimizer", "adam", "not a known optimizer: choose from adamw, sgd, adafactor"),
        ],
    )
    def test_options_are_checked(
        self, sparse: Path, data: Path, tmp_path: Path, option: str, value: Any, message: str
    ) -> None:
        with pytest.raises(TrainingError, match=message):
            finetune(sparse, tmp_path / "out", data=data, **{**QUICK, option: value})

    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_a_tokenizer_of_another_model(self, sparse: Path, tmp_path: Path, split: str) -> None:
        model, data = tmp_path / "model", write_classification(tmp_path / "data")
        shutil.copytree(sparse, model)
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        size = len(tokenizer)
        tokenizer.add_tokens("extra")
        tokenizer.save_pretrained(model)
        with (data / f"{split}.jsonl").open("a") as file:
            file.write('{"text": "an extra word", "label": "no"}\n')
        with pytest.raises(CheckpointError, match=f"gives token id {size}, but .* only has {size}"):
            finetune(model, tmp_path / "out", data=data, **QUICK)

    def test_models_and_data_that_cannot_be_used(
        self, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(CheckpointError):
            finetune(tmp_path / "no", tmp_path / "out", data=data, **QUICK)
        with pytest.raises(DataError, match="lacks the column"):
            finetune(sparse, tmp_path / "out", data=data, **{**QUICK, "task": "sst2"})
        with pytest.raises(DataError, match="not a task"):
            finetune(sparse, tmp_path / "out", data=data, **{**QUICK, "task": "sst3"})
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("module", ["torch", "transformers", "pyarrow"])
    def test_a_missing_library_names_the_extra(
        self, sparse: Path, data: Path, tmp_path: Path, module: str, monkeypatch: Any
    ) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=r"fine-tuning needs the \[train\] extra"):
            finetune(sparse, tmp_path / "out", data=data, **QUICK)


def test_nothing_is_printed(
    sparse: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = []
    finetune(
        sparse,
        tmp_path / "out",
        data=data,
        early_stopping=1,
        progress=lambda *step: seen.append(step),
        **QUICK,
    )
    assert capfd.readouterr() == ("", "")
    assert ("fine-tuning", 0, STEPS) in seen
    assert ("fine-tuning", STEPS, STEPS) in seen
    assert ("tokenising custom train", 60, 60) in seen
    assert ("evaluating custom validation", 24, 24) in seen
