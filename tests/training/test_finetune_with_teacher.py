"""Fine-tuning with a teacher on tiny models: who teaches, what is learnt, what is kept."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from safetensors.numpy import save_file

from short_runs import LEARN, QUICK, assert_same_bits, assert_zeros_held, weights
from sparsebert.errors import CheckpointError, OutputError, TrainingError
from sparsebert.training import finetune
from sparsebert.training.distillation import teacher as teacher_module
from sparsebert.training.distillation.outputs import cache_folder
from tiny_models import TinyBert
from tiny_tasks import letters, write_classification, write_regression, write_rows, write_squad

pytestmark = pytest.mark.usefixtures("short_garbage_collections")


@pytest.fixture(autouse=True)
def cache_of_each_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEBERT_CACHE", str(tmp_path / "cache"))


def record_of(folder: Path) -> Any:
    return json.loads((folder / "training.json").read_text())


def copy_with(source: Path, folder: Path, **config: Any) -> Path:
    """A copy of a model folder with other values in its config.json."""
    shutil.copytree(source, folder)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, **config}))
    return folder


def with_labels_swapped(source: Path, folder: Path) -> Path:
    """The same classifier with its two labels, and the rows of its head, in the other order."""
    copy_with(source, folder, id2label={"0": "YES", "1": "NO"}, label2id={"YES": 0, "NO": 1})
    tensors = weights(folder)
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = np.ascontiguousarray(tensors[name][::-1])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def with_other_weights(folder: Path) -> Path:
    """The file of a model's weights, doubled."""
    tensors = {name: 2 * values for name, values in weights(folder).items()}
    file = folder.with_name("other.safetensors")
    save_file(tensors, file, metadata={"format": "pt"})
    return file


def interrupt_at(label: str, step: int) -> Any:
    """A progress that presses Ctrl-C after this step."""

    def progress(told: str, done: int, total: int) -> None:
        if told == label and done == step:
            signal.raise_signal(signal.SIGINT)

    return progress


class TestLearning:
    def test_the_teacher_is_followed_and_not_the_labels(
        self, sparse: Path, teacher: Path, data: Path, tmp_path: Path
    ) -> None:
        # Labels at random in training; true ones in validation, where only a teacher can help.
        random = np.random.default_rng(3)
        rows = [
            {"text": letters(random, "xy"[row % 2]), "label": str(random.choice(["no", "yes"]))}
            for row in range(60)
        ]
        noise = tmp_path / "noise"
        write_rows(noise / "train.jsonl", rows)
        shutil.copy(data / "validation.jsonl", noise / "validation.jsonl")
        out = tmp_path / "out"
        taught = finetune(sparse, out, data=noise, teacher=teacher, **LEARN)
        alone = finetune(sparse, tmp_path / "alone", data=noise, **LEARN)
        assert taught.scores["validation"]["accuracy"] > 80
        assert alone.scores["validation"]["accuracy"] < 70
        assert_zeros_held(out, sparse)

    def test_the_result_says_who_taught_it_and_how(
        self, sparse: Path, teacher: Path, data: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        options = {"temperature": 3.0, "hidden_weight": 0.25, "task_weight": 0.5}
        finetune(sparse, out, data=data, teacher=teacher, **options, **QUICK)
        for arguments in (
            record_of(out)["arguments"],
            json.loads((out / "config.json").read_text())["sparsity"]["lineage"][-1]["arguments"],
        ):
            assert arguments["teacher"] == "taught"
            assert {name: arguments[name] for name in options} == options
        card = (out / "README.md").read_text()
        assert "teacher=taught" in card
        assert "hidden_weight=0.25" in card
        for file in out.iterdir():
            assert str(teacher.parent).encode() not in file.read_bytes(), file
        assert not (tmp_path / "out.teacher").exists()

    def test_labels_are_matched_by_name(
        self, sparse: Path, teacher: Path, data: Path, tmp_path: Path
    ) -> None:
        swapped = with_labels_swapped(teacher, tmp_path / "swapped")
        finetune(sparse, tmp_path / "same", data=data, teacher=teacher, **QUICK)
        finetune(sparse, tmp_path / "other", data=data, teacher=swapped, **QUICK)
        assert_same_bits(tmp_path / "same", tmp_path / "other")

    def test_a_student_that_has_its_labels_in_another_order(
        self, teacher: Path, data: Path, tmp_path: Path
    ) -> None:
        # The student is the teacher, turned round: nothing to learn, so the loss is 0.
        student = with_labels_swapped(teacher, tmp_path / "student")
        out = tmp_path / "out"
        options = {**QUICK, "epochs": 0.2, "learning_rate": 1e-9, "dropout": 0.0}
        finetune(student, out, data=data, teacher=teacher, precision="fp32", **options)
        assert record_of(out)["history"][0]["loss"] == pytest.approx(0, abs=1e-6)

    def test_a_fresh_head_begins_as_the_teachers(
        self, sparse: Path, teacher: Path, data: Path, tmp_path: Path
    ) -> None:
        still = {**QUICK, "epochs": 0.2, "learning_rate": 1e-9, "dropout": 0.0}
        swapped = with_labels_swapped(teacher, tmp_path / "swapped")
        theirs = weights(teacher)
        for taught_by, out in ((teacher, tmp_path / "same"), (swapped, tmp_path / "other")):
            finetune(sparse, out, data=data, teacher=taught_by, **still)
            for name in ("classifier.weight", "classifier.bias", "bert.pooler.dense.weight"):
                np.testing.assert_allclose(weights(out)[name], theirs[name], atol=1e-6)

    def test_a_narrower_teacher_lends_no_head(
        self, tiny_bert: TinyBert, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        narrow = tiny_bert("encoder", hidden_size=16, num_attention_heads=2, intermediate_size=24)
        finetune(narrow, tmp_path / "teacher", data=data, **QUICK)
        finetune(sparse, tmp_path / "out", data=data, teacher=tmp_path / "teacher", **QUICK)
        assert_zeros_held(tmp_path / "out", sparse)

    @pytest.mark.parametrize("kind", ["stsb", "squad"])
    def test_values_and_spans(self, dense: Path, sparse: Path, tmp_path: Path, kind: str) -> None:
        write = {"stsb": write_regression, "squad": write_squad}[kind]
        data = write(tmp_path / "data", train=20, validation=6)
        options = {**QUICK, "task": kind, "epochs": 1, "max_length": 32}
        finetune(dense, tmp_path / "teacher", data=data, **options)
        finetune(
            sparse,
            tmp_path / "out",
            data=data,
            teacher=tmp_path / "teacher",
            hidden_weight=0.5,
            attention_weight=0.5,
            **options,
        )
        assert_zeros_held(tmp_path / "out", sparse)
        assert all(np.isfinite(entry["loss"]) for entry in record_of(tmp_path / "out")["history"])

    def test_accumulated_steps_train_the_same(
        self, sparse: Path, teacher: Path, data: Path, tmp_path: Path
    ) -> None:
        options = {
            **QUICK,
            "epochs": 1,
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "dropout": 0.0,
            "precision": "fp32",
            "hidden_weight": 0.5,
            "attention_weight": 0.5,
            "teacher": teacher,
        }
        finetune(sparse, tmp_path / "large", data=data, **options)
        options.update(batch_size=2, gradient_accumulation=4)
        finetune(sparse, tmp_path / "small", data=data, **options)
        large, small = weights(tmp_path / "large"), weights(tmp_path / "small")
        for name, values in large.items():
            np.testing.assert_allclose(values, small[name], rtol=1e-3, atol=1e-4, err_msg=name)


class TestOutputs:
    def test_the_teacher_is_asked_where_the_student_trains(
        self, sparse: Path, teacher: Path, data: Path, tmp_path: Path, monkeypatch: Any
    ) -> None:
        asked = []

        class Asked(Exception):
            pass

        def compute(model: Any, *_: Any, **more: Any) -> None:
            asked.append(model.device.type)
            raise Asked

        monkeypatch.setattr(teacher_module, "device_type", lambda: "meta")
        monkeypatch.setattr(teacher_module, "compute_outputs", compute)
        with pytest.raises(Asked):
            finetune(sparse, tmp_path / "out", data=data, teacher=teacher, **QUICK)
        assert asked == ["meta"]

    def test_they_are_computed_once_until_something_changes(
        self, sparse: Path, teacher: Path, data: Path, tmp_path: Path
    ) -> None:
        asked: list[str] = []

        def run(out: str, **changes: Any) -> int:
            """Cached files after a run; ``asked`` tells whether the teacher computed."""
            asked.clear()
            options = {**QUICK, "data": data, "teacher": teacher, "precision": "fp32", **changes}
            finetune(
                sparse,
                tmp_path / out,
                progress=lambda label, done, total: asked.append(label),
                **{**options, "epochs": 0.1},
            )
            return len(list(cache_folder().iterdir()))

        assert run("first") == 1
        assert "asking the teacher" in asked
        assert run("other-seed-and-weights", seed=2, temperature=4.0, learning_rate=1e-2) == 1
        assert "asking the teacher" not in asked
        assert run("shorter", max_length=8) == 2
        assert run("fewer", max_rows=40) == 3
        other = copy_with(teacher, tmp_path / "other", layer_norm_eps=1e-3)
        assert run("other-teacher", teacher=other) == 4
        more = write_classification(tmp_path / "more", seed=9)
        assert run("other-data", data=more) == 5
        assert "asking the teacher" in asked

    def test_kept_outputs_give_the_same_model(
        self, sparse: Path, teacher: Path, data: Path, tmp_path: Path
    ) -> None:
        finetune(sparse, tmp_path / "asked", data=data, teacher=teacher, **QUICK)
        finetune(sparse, tmp_path / "kept", data=data, teacher=teacher, **QUICK)
        (file,) = cache_folder().iterdir()
        file.write_bytes(file.read_bytes()[:100])
        finetune(sparse, tmp_path / "again", data=data, teacher=teacher, **QUICK)
        assert_same_bits(tmp_path / "asked", tmp_path / "kept")
        assert_same_bits(tmp_path / "asked", tmp_path / "again")


class TestResuming:
    def test_an_interrupted_run_goes_on_as_if_nothing_had_been(
        self, sparse: Path, teacher: Path, data: Path, tmp_path: Path
    ) -> None:
        options = {**QUICK, "data": data, "teacher": teacher, "hidden_weight": 0.5}
        finetune(sparse, tmp_path / "whole", **options)
        out = tmp_path / "out"
        with pytest.raises(KeyboardInterrupt):
            finetune(sparse, out, progress=interrupt_at("fine-tuning", 5), **options)
        with pytest.raises(TrainingError, match="teacher was .* and is now"):
            other = copy_with(teacher, tmp_path / "other")
            finetune(sparse, out, resume=True, **{**options, "teacher": other})
        result = finetune(sparse, out, resume=True, **options)
        assert result.resumed_from == 5
        assert_same_bits(out, tmp_path / "whole")
        assert_zeros_held(out, sparse)


class TestEncoderAsTeacher:
    def test_it_is_fine_tuned_first_and_kept(
        self, sparse: Path, dense: Path, data: Path, tmp_path: Path
    ) -> None:
        out, kept = tmp_path / "out", tmp_path / "out.teacher"
        result = finetune(sparse, out, data=data, teacher=dense, temperature=3.0, **QUICK)
        assert "fine-tuned first" in result.notes[0]
        assert "out.teacher" in result.notes[0]
        finetune(dense, tmp_path / "by-hand", data=data, **QUICK)
        assert_same_bits(kept, tmp_path / "by-hand")
        assert not (kept / "masks.safetensors").exists()
        finetune(sparse, tmp_path / "named", data=data, teacher=kept, temperature=3.0, **QUICK)
        assert_same_bits(out, tmp_path / "named")
        # Again, with another weight: the trained teacher is found. With another rate it is not it.
        shutil.rmtree(out)
        labels: list[str] = []
        again = {**QUICK, "data": data, "teacher": dense}
        finetune(
            sparse, out, progress=lambda label, *_: labels.append(label), task_weight=0.1, **again
        )
        assert not any(label.startswith("teacher: ") for label in labels)
        shutil.rmtree(out)
        again["learning_rate"] = 2e-3
        with pytest.raises(OutputError, match="learning_rate was 0.001 and is now 0.002"):
            finetune(sparse, out, **again)
        assert not out.exists()
        finetune(sparse, out, force=True, **again)
        assert record_of(kept)["arguments"]["learning_rate"] == 2e-3
        shutil.rmtree(out)
        again["data"] = write_classification(tmp_path / "data", train=30)
        with pytest.raises(OutputError, match="rows was 60 and is now 30"):
            finetune(sparse, out, **again)

    def test_one_of_other_contents_is_not_used(
        self, sparse: Path, dense: Path, tmp_path: Path
    ) -> None:
        """The same names, options and numbers of rows, but labels that were mended since."""
        data = write_classification(tmp_path / "data")
        encoder = copy_with(dense, tmp_path / "encoder")
        options = {**QUICK, "data": data, "teacher": encoder}
        kept, weights_of = tmp_path / "out.teacher", lambda: weights(kept)["classifier.weight"]

        def run(**more: Any) -> list[str]:
            return finetune(sparse, tmp_path / "out", **{**options, **more}).notes

        def refused(told: str) -> None:
            with pytest.raises(OutputError, match=rf"trained differently \({told}\).* --force"):
                finetune(sparse, tmp_path / "new", **options)

        run()
        (tmp_path / "out.teacher").rename(tmp_path / "new.teacher")
        shutil.copytree(tmp_path / "new.teacher", kept)
        first = weights_of()
        assert "fine-tuned first (by an earlier run) with" in run(force=True)[0]
        assert np.array_equal(weights_of(), first)
        validation = data / "validation.jsonl"
        validation.write_text("".join(validation.read_text().splitlines(keepends=True)[1:]))
        assert "(by an earlier run)" in run(force=True)[0]  # a teacher that it did not affect
        swap = {'"yes"': '"no"', '"no"': '"yes"'}
        for file in data.iterdir():
            file.write_text(re.sub('"(yes|no)"', lambda each: swap[each[0]], file.read_text()))
        refused("the training rows changed")
        assert "fine-tuned first with" in run(force=True)[0]
        assert not np.array_equal(weights_of(), first)
        shutil.rmtree(tmp_path / "new.teacher")
        shutil.copytree(kept, tmp_path / "new.teacher")
        shutil.copy(with_other_weights(encoder), encoder / "model.safetensors")
        refused("the model changed")

    def test_its_own_training_can_be_resumed(
        self, sparse: Path, dense: Path, data: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        options = {**QUICK, "data": data, "teacher": dense}
        stop = interrupt_at("teacher: fine-tuning", 5)
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            finetune(sparse, out, progress=stop, **options)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.teacher.training"]
        with pytest.raises(TrainingError, match="--resume"):
            finetune(sparse, out, **options)
        finetune(sparse, out, resume=True, **options)
        assert record_of(tmp_path / "out.teacher")["resumed_from_step"] == 5
        assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "out", "out.teacher"]

    def test_something_else_in_its_place_is_left_alone(
        self, sparse: Path, dense: Path, data: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "out.teacher").mkdir()
        (tmp_path / "out.teacher" / "thesis.txt").write_text("mine")
        for force in (False, True):
            with pytest.raises(OutputError, match="not a"):
                finetune(sparse, tmp_path / "out", data=data, teacher=dense, force=force, **QUICK)
        assert [path.name for path in tmp_path.iterdir()] == ["out.teacher"]
        assert (tmp_path / "out.teacher" / "thesis.txt").read_text() == "mine"


class TestFolderOfSeeds:
    def test_the_teacher_is_the_one_of_the_same_seed(
        self, sparse: Path, dense: Path, teacher: Path, data: Path, tmp_path: Path
    ) -> None:
        seeds = tmp_path / "seeds"
        finetune(dense, seeds / "seed-2", data=data, seed=2, **QUICK)
        shutil.copytree(teacher, seeds / "seed-10")
        finetune(sparse, tmp_path / "out", data=data, teacher=seeds, seed=2, **QUICK)
        named = {"teacher": seeds / "seed-2", "seed": 2}
        finetune(sparse, tmp_path / "named", data=data, **named, **QUICK)
        assert_same_bits(tmp_path / "out", tmp_path / "named")
        with pytest.raises(TrainingError, match="has the seeds 2, 10, but this run has seed 1"):
            finetune(sparse, tmp_path / "none", data=data, teacher=seeds, **QUICK)


class TestErrors:
    def run(self, student: Path, teacher: Any, data: Path, out: Path, **options: Any) -> None:
        try:
            finetune(student, out, data=data, teacher=teacher, **{**QUICK, **options})
        finally:
            assert not out.exists()
            assert not out.with_name(out.name + ".training").exists()

    def test_no_model(self, sparse: Path, data: Path, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="nowhere/at all"):
            self.run(sparse, "./nowhere/at all", data, tmp_path / "out")

    @pytest.mark.parametrize(
        ("head", "labels", "said"),
        [
            ("sequence-classification", {"id2label": {"0": "bad", "1": "good"}}, "bad, good"),
            ("sequence-classification", {}, "LABEL_0, LABEL_1, LABEL_2"),
            ("sequence-classification", {"problem_type": "regression"}, "no, yes"),
            ("question-answering", {}, "question-answering"),
            ("token-classification", {}, "token-classification"),
        ],
    )
    def test_a_head_of_another_task(
        self,
        tiny_bert: TinyBert,
        sparse: Path,
        data: Path,
        tmp_path: Path,
        head: str,
        labels: dict[str, Any],
        said: str,
    ) -> None:
        count = len(labels["id2label"]) if "id2label" in labels else 1 if labels else 3
        teacher = copy_with(tiny_bert(head, num_labels=count), tmp_path / "teacher", **labels)
        with pytest.raises(CheckpointError, match=f"another task.*{said}"):
            self.run(sparse, teacher, data, tmp_path / "out")

    def test_another_vocabulary(
        self, sparse: Path, teacher: Path, data: Path, tmp_path: Path
    ) -> None:
        other = shutil.copytree(teacher, tmp_path / "other")
        words = json.loads((other / "tokenizer.json").read_text())
        vocabulary = words["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
        (other / "tokenizer.json").write_text(json.dumps(words))
        with pytest.raises(TrainingError, match="a different vocabulary"):
            self.run(sparse, other, data, tmp_path / "out")

    def test_too_few_positions(
        self, tiny_bert: TinyBert, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        short = tiny_bert("encoder", max_position_embeddings=8)
        with pytest.raises(TrainingError, match="set max_length to at most 8"):
            self.run(sparse, short, data, tmp_path / "out")

    def test_hidden_states_of_another_width(
        self, tiny_bert: TinyBert, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        wide = tiny_bert("encoder", hidden_size=48)
        with pytest.raises(TrainingError, match="48 wide and those of .* 32"):
            self.run(sparse, wide, data, tmp_path / "out", hidden_weight=1.0)

    def test_attention_of_another_width_is_compared(
        self, tiny_bert: TinyBert, sparse: Path, data: Path, tmp_path: Path
    ) -> None:
        wide = tiny_bert("encoder", hidden_size=48, num_attention_heads=6, num_hidden_layers=3)
        options = {**QUICK, "epochs": 1, "attention_weight": 1.0, "logits_weight": 0.0}
        finetune(sparse, tmp_path / "out", data=data, teacher=wide, **options)
        assert_zeros_held(tmp_path / "out", sparse)

    def test_token_types_it_does_not_know(
        self, tiny_bert: TinyBert, sparse: Path, tmp_path: Path
    ) -> None:
        data = write_regression(tmp_path / "data", train=10, validation=4)
        single = tiny_bert("encoder", type_vocab_size=1)
        with pytest.raises(TrainingError, match="token type 1, but the teacher .* only knows 1"):
            self.run(sparse, single, data, tmp_path / "out", task="stsb")

    def test_the_teacher_in_the_folder_that_is_to_be_written(
        self, sparse: Path, teacher: Path, data: Path, tmp_path: Path
    ) -> None:
        mine = shutil.copytree(teacher, tmp_path / "mine")
        with pytest.raises(OutputError, match="name another output folder"):
            finetune(sparse, mine, data=data, teacher=mine, force=True, **QUICK)
        assert (mine / "model.safetensors").is_file()
