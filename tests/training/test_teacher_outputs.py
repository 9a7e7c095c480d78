"""A teacher's outputs: the numbers that it gives live, kept on disk until anything changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.numpy import load_file, save_file

from sparsebert.checkpoint import open_checkpoint
from sparsebert.errors import TrainingError
from sparsebert.progress import silent
from sparsebert.tasks.table import Kind
from sparsebert.tasks.tokens import TokenRows
from sparsebert.training.distillation.outputs import (
    TeacherOutputs,
    cache_folder,
    cached_outputs,
    compute_outputs,
    outputs_key,
)
from tiny_models import TinyBert


def draw_rows(vocabulary: int, seed: int = 0) -> TokenRows:
    """13 rows of 1 to 20 tokens, two of them of one length."""
    random = np.random.default_rng(seed)
    lengths = [5, 1, 20, 5, *random.integers(1, 20, size=9)]
    ids = [random.integers(5, vocabulary, size=length).tolist() for length in lengths]
    return TokenRows.of(ids, [[int(place > 3) for place in range(len(row))] for row in ids])


def load(folder: Path, head: str) -> Any:
    kind = {"sequence": "SequenceClassification", "question": "QuestionAnswering"}[head]
    return getattr(transformers, f"BertFor{kind}").from_pretrained(folder)


def one_by_one(model: Any, rows: TokenRows) -> list[Any]:
    """The model's own outputs of each row alone, without padding."""
    found = []
    with torch.no_grad():
        for index in range(len(rows)):
            ids, types = (torch.from_numpy(part.astype(np.int64))[None] for part in rows.row(index))
            found.append(model(ids, token_type_ids=types, output_hidden_states=True))
    return found


class TestCompute:
    @pytest.mark.parametrize("labels", [1, 3])
    def test_logits_are_those_of_each_row_alone(self, tiny_bert: TinyBert, labels: int) -> None:
        model = load(tiny_bert("sequence-classification", num_labels=labels), "sequence")
        rows = draw_rows(model.config.vocab_size)
        kind = Kind.CLASSIFICATION if labels > 1 else Kind.REGRESSION
        outputs = compute_outputs(model.train(), rows, kind, batch_size=4, progress=silent)
        assert outputs.logits.shape == (13, labels)
        expected = np.concatenate([output.logits for output in one_by_one(model, rows)])
        np.testing.assert_allclose(outputs.logits, expected, rtol=1e-4, atol=1e-5)
        chosen = torch.tensor([11, 0, 2])
        np.testing.assert_array_equal(outputs.batch(chosen, 99), outputs.logits[[11, 0, 2]])

    def test_spans_lie_end_to_end(self, tiny_bert: TinyBert) -> None:
        model = load(tiny_bert("question-answering"), "question")
        rows = draw_rows(model.config.vocab_size)
        outputs = compute_outputs(model, rows, Kind.QUESTION, batch_size=4, progress=silent)
        batch = outputs.batch(torch.tensor([2, 1, 12]), 20)
        assert batch.shape == (3, 20, 2)
        alone = one_by_one(model, rows)
        for place, row in enumerate((2, 1, 12)):
            length = int(rows.lengths[row])
            expected = torch.stack((alone[row].start_logits, alone[row].end_logits), -1)[0]
            torch.testing.assert_close(batch[place, :length], expected, rtol=1e-4, atol=1e-5)
            assert not batch[place, length:].any()

    def test_variance_is_over_all_real_tokens(self, tiny_bert: TinyBert) -> None:
        model = load(tiny_bert("sequence-classification", num_labels=3), "sequence")
        rows = draw_rows(model.config.vocab_size)
        outputs = compute_outputs(model, rows, Kind.CLASSIFICATION, batch_size=5, progress=silent)
        alone = one_by_one(model, rows)
        for layer in range(2):
            states = np.concatenate([output.hidden_states[layer + 1][0] for output in alone])
            expected = states.astype(np.float64).var(0).mean()
            assert outputs.hidden_variance[layer] == pytest.approx(expected, rel=1e-4)

    def test_columns_change_places(self) -> None:
        outputs = TeacherOutputs(np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2))
        np.testing.assert_array_equal(
            outputs.with_columns([2, 0, 1]).logits, [[2, 0, 1], [5, 3, 4]]
        )

    def test_a_teacher_without_finite_answers_is_refused(self, tiny_bert: TinyBert) -> None:
        model = load(tiny_bert("sequence-classification", num_labels=3), "sequence")
        with torch.no_grad():
            model.classifier.bias[1] = float("inf")
        rows = draw_rows(model.config.vocab_size)
        with pytest.raises(TrainingError, match="NaN or infinity"):
            compute_outputs(model, rows, Kind.CLASSIFICATION, batch_size=5, progress=silent)


class Asked:
    """A teacher that counts how often it is asked."""

    def __init__(self, outputs: TeacherOutputs) -> None:
        self.times = 0
        self._outputs = outputs

    def __call__(self) -> TeacherOutputs:
        self.times += 1
        return self._outputs


class TestCache:
    @pytest.fixture(autouse=True)
    def own_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SPARSEBERT_CACHE", str(tmp_path / "cache"))

    @pytest.fixture
    def rows(self) -> TokenRows:
        return draw_rows(100)

    def outputs(self, kind: Kind, rows: TokenRows) -> TeacherOutputs:
        random = np.random.default_rng(7)
        question = kind is Kind.QUESTION
        shape = (len(rows.ids), 2) if question else (len(rows), 3)
        logits = random.standard_normal(shape).astype(np.float32)
        return TeacherOutputs(logits, np.array([1 / 3, 7.0]), rows.offsets if question else None)

    @pytest.mark.parametrize("kind", [Kind.CLASSIFICATION, Kind.QUESTION])
    def test_what_is_read_is_what_was_written(self, rows: TokenRows, kind: Kind) -> None:
        ask = Asked(self.outputs(kind, rows))
        first = cached_outputs("a" * 64, kind, rows, ask)
        second = cached_outputs("a" * 64, kind, rows, ask)
        assert ask.times == 1
        assert np.array_equal(first.logits.view(np.int32), second.logits.view(np.int32))
        assert np.array_equal(first.hidden_variance, second.hidden_variance)
        assert (second.offsets is None) == (kind is Kind.CLASSIFICATION)
        chosen = torch.tensor([3, 1])
        assert torch.equal(first.batch(chosen, 20), second.batch(chosen, 20))

    def test_the_folder_is_the_one_that_the_user_chose(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert cache_folder() == tmp_path / "cache" / "teacher-outputs"
        monkeypatch.delenv("SPARSEBERT_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_folder() == tmp_path / "xdg" / "sparsebert" / "teacher-outputs"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert cache_folder() == Path.home() / ".cache" / "sparsebert" / "teacher-outputs"

    @pytest.mark.parametrize("damage", ["cut", "flip", "text", "swap", "rows", "empty"])
    def test_a_file_that_is_not_whole_is_written_anew(self, rows: TokenRows, damage: str) -> None:
        ask = Asked(self.outputs(Kind.CLASSIFICATION, rows))
        cached_outputs("a" * 64, Kind.CLASSIFICATION, rows, ask)
        (file,) = cache_folder().iterdir()
        whole = file.read_bytes()
        if damage == "cut":
            file.write_bytes(whole[:-8])
        elif damage == "flip":
            file.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
        elif damage == "text":
            file.write_text("no tensors in here")
        elif damage == "swap":  # the outputs of another teacher under this one's name
            cached_outputs("b" * 64, Kind.CLASSIFICATION, rows, ask)
            shutil.copy(cache_folder() / f"{'b' * 64}.safetensors", file)
            ask.times = 1
        elif damage == "rows":
            save_file(load_file(file), file, metadata={"sparsebert": json.dumps([1])})
        else:
            file.write_bytes(b"")
        again = cached_outputs("a" * 64, Kind.CLASSIFICATION, rows, ask)
        assert ask.times == 2
        assert np.array_equal(again.logits, ask().logits)
        assert file.read_bytes() == whole

    def test_outputs_that_cannot_be_kept_are_used(
        self, rows: TokenRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("SPARSEBERT_CACHE", str(tmp_path / "file"))
        ask = Asked(self.outputs(Kind.CLASSIFICATION, rows))
        for _ in range(2):
            found = cached_outputs("a" * 64, Kind.CLASSIFICATION, rows, ask)
            assert np.array_equal(found.logits, ask().logits)
        assert ask.times == 4


class TestKey:
    def test_it_changes_with_whatever_the_outputs_depend_on(
        self, tiny_bert: TinyBert, tmp_path: Path
    ) -> None:
        folder = tiny_bert("sequence-classification", num_labels=3)
        teacher = open_checkpoint(folder)
        rows = draw_rows(100)
        keys = [outputs_key(teacher, rows, "fp32"), outputs_key(teacher, rows, "bf16")]
        # A shorter max_length cuts rows; moving a boundary alone changes no token.
        keys.append(outputs_key(teacher, draw_rows(100, seed=1), "fp32"))
        moved = rows.offsets.copy()
        moved[1] += 1
        keys.append(outputs_key(teacher, TokenRows(rows.ids, rows.type_ids, moved), "fp32"))
        types = 1 - rows.type_ids
        keys.append(outputs_key(teacher, TokenRows(rows.ids, types, rows.offsets), "fp32"))
        copy = shutil.copytree(folder, tmp_path / "copy")
        assert outputs_key(open_checkpoint(copy), rows, "fp32") == keys[0]
        tensors = load_file(copy / "model.safetensors")
        tensors["classifier.bias"] = np.nextafter(tensors["classifier.bias"], np.float32(9))
        save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
        keys.append(outputs_key(open_checkpoint(copy), rows, "fp32"))
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-5}))
        keys.append(outputs_key(open_checkpoint(copy), rows, "fp32"))
        assert len(set(keys)) == len(keys) == 7
