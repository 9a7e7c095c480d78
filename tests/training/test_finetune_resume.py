"""Fine-tuning that does not go straight through: stopped, out of memory, ended early."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from short_runs import (
    QUICK,
    STEPS,
    Crash,
    assert_same_bits,
    assert_zeros_held,
    crash_at,
    interrupt_at,
    weights,
)
from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.errors import OutputError, TrainingError
from sparsebert.evaluation.metrics import Scores
from sparsebert.evaluation.scoring import PreparedSplit
from sparsebert.pruning.inspection import inspect
from sparsebert.training import finetune
from sparsebert.training.locked_masks import LockedMasksCallback
from sparsebert.training.trainer import ObjectiveTrainer

pytestmark = pytest.mark.usefixtures("short_garbage_collections")


class TestResume:
    @pytest.mark.parametrize("step", [3, 11], ids=["in epoch 1", "in epoch 2"])
    def test_ctrl_c_saves_and_resume_ends_as_if_nothing_had_happened(
        self, sparse: Path, data: Path, tmp_path: Path, step: int
    ) -> None:
        finetune(sparse, tmp_path / "whole", data=data, **QUICK)
        out = tmp_path / "out"
        with pytest.raises(
            KeyboardInterrupt, match=rf"stopped after step {step} of 16; .*--resume"
        ):
            finetune(sparse, out, data=data, progress=interrupt_at(step), **QUICK)
        assert not out.exists()
        checkpoint = tmp_path / "out.training" / f"checkpoint-{step}"
        stored = read_masks(open_checkpoint(checkpoint))
        masks = read_masks(open_checkpoint(sparse))
        assert all(np.array_equal(stored[name], mask) for name, mask in masks.items())
        assert (checkpoint / "masks.safetensors").is_file()

        with pytest.raises(TrainingError, match="unfinished run for .*: continue it with --resume"):
            finetune(sparse, out, data=data, **QUICK)
        result = finetune(sparse, out, data=data, resume=True, **QUICK)
        assert (result.resumed_from, result.steps) == (step, STEPS)
        assert_same_bits(out, tmp_path / "whole")
        assert_zeros_held(out, sparse)
        assert not (tmp_path / "out.training").exists()
        histories = [
            json.loads((folder / "training.json").read_text())["history"]
            for folder in (out, tmp_path / "whole")
        ]
        assert [each["step"] for each in histories[0]] == [each["step"] for each in histories[1]]

    @pytest.mark.parametrize("optimizer", ["sgd", "adafactor"])
    def test_a_crash_goes_on_from_the_last_epoch(
        self, sparse: Path, data: Path, tmp_path: Path, optimizer: str
    ) -> None:
        options = {**QUICK, "optimizer": optimizer, "gradient_accumulation": 2, "batch_size": 4}
        finetune(sparse, tmp_path / "whole", data=data, **options)
        out = tmp_path / "out"
        with pytest.raises(Crash):
            finetune(sparse, out, data=data, progress=crash_at(13), **options)
        result = finetune(sparse, out, data=data, resume=True, **options)
        assert result.resumed_from == 8
        assert_same_bits(out, tmp_path / "whole")
        assert_zeros_held(out, sparse)

    def test_everything_at_once_resumes_to_the_same_bits(
        self, dense: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SPARSEBERT_CACHE", str(tmp_path / "cache"))
        finetune(dense, tmp_path / "teacher", data=data, **QUICK)
        options = {**QUICK, "teacher": tmp_path / "teacher", "method": "snip-momentum"}
        options |= {"quantize": "int8", "embeddings": "used"}
        options |= {"batch_size": 4, "gradient_accumulation": 2}
        finetune(dense, tmp_path / "whole", data=data, **options)
        assert inspect(tmp_path / "whole").whole
        before = weights(dense)["embeddings.word_embeddings.weight"]
        after = weights(tmp_path / "whole")["bert.embeddings.word_embeddings.weight"]
        assert 0 < (after != before).any(axis=1).mean() < 0.2
        with pytest.raises(KeyboardInterrupt):
            finetune(dense, tmp_path / "out", data=data, progress=interrupt_at(7), **options)
        finetune(dense, tmp_path / "out", data=data, resume=True, **options)
        assert_same_bits(tmp_path / "out", tmp_path / "whole")

    def test_masks_are_restored_from_the_checkpoint(
        self, sparse: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            finetune(sparse, tmp_path / "out", data=data, progress=interrupt_at(4), **QUICK)
        held = []
        begin = LockedMasksCallback.on_train_begin

        def spy(self: Any, *arguments: Any, **more: Any) -> None:
            held.append(self.masks.masks)
            begin(self, *arguments, **more)

        monkeypatch.setattr(LockedMasksCallback, "on_train_begin", spy)
        opened = []
        from sparsebert.training import task_run

        open_real = task_run.open_checkpoint
        monkeypatch.setattr(
            task_run, "open_checkpoint", lambda path: opened.append(path) or open_real(path)
        )
        finetune(sparse, tmp_path / "out", data=data, resume=True, **QUICK)
        assert [path.name for path in opened] == ["checkpoint-4"]
        assert held[0].keys() == read_masks(open_checkpoint(sparse)).keys()

    def test_a_checkpoint_cut_short_is_passed_over(
        self, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        with pytest.raises(Crash):
            finetune(sparse, out, data=data, progress=crash_at(3), **QUICK)
        assert not (tmp_path / "out.training").exists()  # nothing worth keeping yet
        with pytest.raises(KeyboardInterrupt):
            finetune(sparse, out, data=data, progress=interrupt_at(11), **QUICK)
        newest = tmp_path / "out.training" / "checkpoint-11"
        (newest / "trainer_state.json").write_text('{"epoch": 1.')
        for number in (14, 16):
            shutil.copytree(newest, newest.with_name(f"checkpoint-{number}"))
        with pytest.raises(KeyboardInterrupt):  # from 8; those cut short do not count as newer
            finetune(sparse, out, data=data, resume=True, progress=interrupt_at(12), **QUICK)
        assert finetune(sparse, out, data=data, resume=True, **QUICK).resumed_from == 12

    def test_other_options_are_refused(self, sparse: Path, data: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        with pytest.raises(KeyboardInterrupt):
            finetune(sparse, out, data=data, progress=interrupt_at(4), **QUICK)
        other = {**QUICK, "learning_rate": 1e-4}
        with pytest.raises(TrainingError, match=r"learning_rate was 0.001 and is now 0.0001"):
            finetune(sparse, out, data=data, resume=True, **other)
        (tmp_path / "out.training" / "run.json").write_text("{}")
        with pytest.raises(TrainingError, match=r"run.json is missing or damaged"):
            finetune(sparse, out, data=data, resume=True, **QUICK)

    @pytest.mark.parametrize("how", ["sparse", "gradual"])
    def test_a_run_with_masks_does_not_take_the_place_of_one_without(
        self, dense: Path, sparse: Path, data: Path, tmp_path: Path, how: str
    ) -> None:
        out, kept = tmp_path / "out", tmp_path / "out.training" / "checkpoint-11"
        with pytest.raises(KeyboardInterrupt):
            finetune(dense, out, data=data, progress=interrupt_at(11), **QUICK)
        model = sparse if how == "sparse" else dense
        options = QUICK if how == "sparse" else {**QUICK, "method": "gradual"}
        with pytest.raises(TrainingError, match="unfinished run for .*: continue it with --resume"):
            finetune(model, out, data=data, **options)
        with pytest.raises(TrainingError, match=r"was started differently: .* was .* and is now"):
            finetune(model, out, data=data, resume=True, **options)
        assert kept.is_dir()
        assert finetune(dense, out, data=data, resume=True, **QUICK).resumed_from == 11

    def test_another_model_under_the_same_name_is_refused(
        self, dense: Path, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        model, out = tmp_path / "model", tmp_path / "out"
        shutil.copytree(dense, model)
        with pytest.raises(KeyboardInterrupt):
            finetune(model, out, data=data, progress=interrupt_at(4), **QUICK)
        shutil.rmtree(model)
        shutil.copytree(sparse, model)
        with pytest.raises(TrainingError, match="masks was False and is now True"):
            finetune(model, out, data=data, resume=True, **QUICK)
        # A folder that does not say whether there were masks is taken for what it is said to be.
        shutil.rmtree(model)
        shutil.copytree(dense, model)
        run = json.loads((tmp_path / "out.training" / "run.json").read_text())
        del run["masks"]
        (tmp_path / "out.training" / "run.json").write_text(json.dumps(run))
        assert finetune(model, out, data=data, resume=True, **QUICK).resumed_from == 4

    @pytest.mark.parametrize("resume", [False, True])
    def test_what_no_run_has_left_is_not_touched(
        self, sparse: Path, data: Path, tmp_path: Path, resume: bool
    ) -> None:
        folder, file = tmp_path / "one.training", tmp_path / "two.training"
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
        file.write_text("mine")
        for name in ("one", "two"):
            with pytest.raises(OutputError, match=rf"{name}.training, .* was not made by sparseb"):
                finetune(sparse, tmp_path / name, data=data, resume=resume, **QUICK)
        assert (folder / "notes.txt").read_text() == file.read_text() == "mine"
        (folder / "notes.txt").unlink()  # an empty folder is nobody's
        options = {**QUICK, "epochs": 0.1}
        assert finetune(sparse, tmp_path / "one", data=data, resume=resume, **options).steps == 1

    def test_resume_with_nothing_there_starts_anew(
        self, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        assert finetune(sparse, tmp_path / "out", data=data, resume=True, **QUICK).steps == STEPS

    def test_ctrl_c_means_what_it_did_afterwards(
        self, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            finetune(sparse, tmp_path / "out", data=data, progress=interrupt_at(4), **QUICK)
        assert signal.getsignal(signal.SIGINT) is before

    def test_the_second_ctrl_c_interrupts_at_once(
        self, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        def twice(label: str, done: int, total: int) -> None:
            if label == "fine-tuning" and done == 2:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt, match="^$"):
            finetune(sparse, tmp_path / "out", data=data, progress=twice, **QUICK)
        assert list(tmp_path.iterdir()) == []

    def test_ctrl_c_while_the_trained_model_is_scored(
        self, sparse: Path, data: Path, tmp_path: Path, ctrl_c: Callable[[], None]
    ) -> None:
        out = tmp_path / "out"

        def press(label: str, done: int, total: int) -> None:
            if label.startswith("evaluating"):
                ctrl_c()

        with pytest.raises(KeyboardInterrupt, match=r"scoring the trained model; .* --resume"):
            finetune(sparse, out, data=data, progress=press, **QUICK)
        assert not out.exists()
        result = finetune(sparse, out, data=data, resume=True, **QUICK)
        assert (result.resumed_from, result.steps) == (STEPS, STEPS)
        finetune(sparse, tmp_path / "whole", data=data, **QUICK)
        assert_same_bits(out, tmp_path / "whole")


class TestMemory:
    MESSAGES = (
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate "
        "memory: you tried to allocate 12884901888 bytes. Error code 12 (Cannot allocate memory)",
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
    )

    @staticmethod
    def lack(monkeypatch: pytest.MonkeyPatch, error: Exception, rows: int, first_step: int) -> None:
        """Batches of more than ``rows`` fail from ``first_step`` on."""
        step = ObjectiveTrainer.training_step

        def training_step(self: Any, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
            if len(inputs["labels"]) > rows and self.state.global_step >= first_step:
                raise error
            return step(self, model, inputs, *more, **named)

        monkeypatch.setattr(ObjectiveTrainer, "training_step", training_step)

    @pytest.mark.parametrize(
        "error",
        [RuntimeError(MESSAGES[0]), torch.OutOfMemoryError(MESSAGES[1]), MemoryError()],
        ids=["cpu", "cuda", "python"],
    )
    def test_at_the_start_the_batch_is_halved_until_it_fits(
        self, sparse: Path, data: Path, tmp_path: Path, monkeypatch: Any, error: Exception
    ) -> None:
        finetune(
            sparse,
            tmp_path / "small",
            data=data,
            **{**QUICK, "batch_size": 2, "gradient_accumulation": 4},
        )
        self.lack(monkeypatch, error, rows=3, first_step=0)
        result = finetune(sparse, tmp_path / "out", data=data, **QUICK)
        assert (result.batch_size, result.gradient_accumulation, result.steps) == (2, 4, STEPS)
        assert "memory ran out with batches of 8: continued with batches of 4" in result.notes[0]
        assert "memory ran out with batches of 4: continued with batches of 2" in result.notes[1]
        assert_same_bits(tmp_path / "out", tmp_path / "small")

    def test_later_it_goes_on_from_the_last_checkpoint(
        self, sparse: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.lack(monkeypatch, RuntimeError(self.MESSAGES[0]), rows=4, first_step=12)
        result = finetune(sparse, tmp_path / "out", data=data, **QUICK)
        assert (result.batch_size, result.resumed_from, result.steps) == (4, 8, STEPS)
        assert_zeros_held(tmp_path / "out", sparse)

    def test_a_resumed_run_keeps_the_batch_that_fits(
        self, sparse: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as lacking:
            self.lack(lacking, RuntimeError(self.MESSAGES[0]), rows=4, first_step=0)
            with pytest.raises(KeyboardInterrupt):
                finetune(sparse, tmp_path / "out", data=data, progress=interrupt_at(5), **QUICK)
        result = finetune(sparse, tmp_path / "out", data=data, resume=True, **QUICK)
        assert (result.batch_size, result.gradient_accumulation) == (4, 2)
        assert (result.resumed_from, result.steps) == (5, STEPS)

    def test_a_single_row_that_does_not_fit_is_an_error(
        self, sparse: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.lack(monkeypatch, RuntimeError(self.MESSAGES[0]), rows=0, first_step=0)
        with pytest.raises(TrainingError, match="memory ran out even with one row at a time"):
            finetune(sparse, tmp_path / "out", data=data, **QUICK)
        assert list(tmp_path.iterdir()) == []

    def test_other_errors_are_not_taken_for_it(
        self, sparse: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.lack(monkeypatch, RuntimeError("mat1 and mat2 shapes"), rows=0, first_step=0)
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            finetune(sparse, tmp_path / "out", data=data, **QUICK)


class TestEarlyStopping:
    @staticmethod
    def history(record: Path) -> list[float]:
        """The accuracies in a Trainer's state or a training.json."""
        raw = json.loads(record.read_text())
        log = raw.get("log_history") or raw["history"]
        return [each["eval_accuracy"] for each in log if "eval_accuracy" in each]

    @staticmethod
    def script(
        monkeypatch: pytest.MonkeyPatch, scores: list[float], stop_after: int | None = None
    ) -> list[Any]:
        """Give these accuracies in turn; returns the classifiers that were scored.

        ``stop_after`` so many, Ctrl-C is pressed.
        """
        scored: list[Any] = []

        def score(self: Any, predictor: Any, *_: Any) -> Scores:
            if len(scored) == stop_after:
                raise KeyboardInterrupt
            classifier = predictor._model.classifier.weight
            scored.append(classifier.detach().numpy().copy())
            value = scores[min(len(scored), len(scores)) - 1]
            return Scores({"accuracy": value, "f1": value})

        monkeypatch.setattr(PreparedSplit, "score", score)
        return scored

    def test_it_stops_and_keeps_the_best_epoch(
        self, sparse: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scored = self.script(monkeypatch, [50, 60, 55, 54, 70])
        options = {**QUICK, "epochs": 9, "early_stopping": 2}
        result = finetune(sparse, tmp_path / "out", data=data, **options)
        assert result.steps == 4 * 8
        assert np.array_equal(weights(tmp_path / "out")["classifier.weight"], scored[1])
        assert "the model is the one of step 16, which scored best on validation" in result.notes[0]
        assert_zeros_held(tmp_path / "out", sparse)
        assert self.history(tmp_path / "out" / "training.json") == [50, 60, 55, 54]
        assert "flatters its score" in (tmp_path / "out" / "README.md").read_text()

    def test_resumed_it_goes_on_counting(
        self, sparse: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        options = {**QUICK, "epochs": 9, "early_stopping": 2}
        with monkeypatch.context() as first:
            self.script(first, [50, 60, 55])
            with pytest.raises(KeyboardInterrupt):
                finetune(sparse, tmp_path / "out", data=data, progress=interrupt_at(27), **options)
        best = weights(tmp_path / "out.training" / "checkpoint-16")["classifier.weight"]
        self.script(monkeypatch, [54, 99])
        result = finetune(sparse, tmp_path / "out", data=data, resume=True, **options)
        assert (result.resumed_from, result.steps) == (27, 32)
        assert np.array_equal(weights(tmp_path / "out")["classifier.weight"], best)

    @pytest.mark.parametrize("epochs", [9, 4, 3.5], ids=["early", "at the end", "in an epoch"])
    def test_a_run_that_had_ended_is_not_trained_on(
        self,
        sparse: Path,
        data: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        epochs: float,
    ) -> None:
        """Stopped while the trained model was scored, and resumed from another working folder."""
        scores, steps = [50, 60, 55, 54], min(round(8 * epochs), 32)
        options = {**QUICK, "epochs": epochs, "early_stopping": 2}
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path)
        with monkeypatch.context() as first, pytest.raises(KeyboardInterrupt):
            self.script(first, scores, stop_after=4)
            finetune(sparse, "out", data=data, **options)
        history = self.history(Path("out.training", f"checkpoint-{steps}", "trainer_state.json"))
        best = weights(Path("out.training/checkpoint-16"))["classifier.weight"]
        monkeypatch.chdir(tmp_path / "elsewhere")
        self.script(monkeypatch, [99])
        result = finetune(sparse, "../out", data=data, resume=True, **options)
        assert (result.resumed_from, result.steps) == (steps, steps)
        assert np.array_equal(weights(tmp_path / "out")["classifier.weight"], best)
        assert ("stopped early, after step 32 of 72" in result.notes[0]) == (epochs == 9)
        assert self.history(tmp_path / "out" / "training.json") == history

    def test_ctrl_c_in_the_last_step_of_an_epoch_still_scores_it(
        self, sparse: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        options = {**QUICK, "epochs": 9, "early_stopping": 2}
        scored = self.script(monkeypatch, [50, 60, 55, 54])
        with pytest.raises(KeyboardInterrupt, match="after step 16 of 72"):
            finetune(sparse, tmp_path / "out", data=data, progress=interrupt_at(16), **options)
        result = finetune(sparse, tmp_path / "out", data=data, resume=True, **options)
        assert (result.resumed_from, result.steps) == (16, 32)
        assert np.array_equal(weights(tmp_path / "out")["classifier.weight"], scored[1])

    def test_scoring_does_not_change_the_training(
        self, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        finetune(sparse, tmp_path / "plain", data=data, **QUICK)
        result = finetune(sparse, tmp_path / "watched", data=data, early_stopping=9, **QUICK)
        found = self.history(tmp_path / "watched" / "training.json")
        assert len(found) == 2
        assert result.scores["validation"]["accuracy"] == max(found)
        if found[1] > found[0]:
            assert_same_bits(tmp_path / "plain", tmp_path / "watched")
