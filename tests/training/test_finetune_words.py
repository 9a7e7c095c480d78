"""Fine-tuning on named entities: it learns, keeps zeros, resumes, and learns from a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sparsebert as sb
from short_runs import assert_same_bits, assert_zeros_held, interrupt_at
from sparsebert.checkpoint import open_checkpoint
from sparsebert.tasks.table import Kind
from sparsebert.tasks.word_tokens import UNLABELLED
from sparsebert.training.distillation.losses import logits_loss
from sparsebert.training.objective import TaskObjective
from tiny_models import TinyBert
from tiny_tasks import write_conll

QUICK: dict[str, Any] = {"task": "ner", "epochs": 2, "learning_rate": 1e-3, "batch_size": 8}
LEARN: dict[str, Any] = {**QUICK, "epochs": 16, "learning_rate": 4e-3, "dropout": 0.0}
LABELS = ("O", "B-LOC", "B-PER", "I-PER")


@pytest.fixture(scope="module")
def conll(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_conll(tmp_path_factory.mktemp("conll"))


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory, tiny_bert: TinyBert, conll: Path) -> Path:
    out = tmp_path_factory.mktemp("dense") / "ner"
    result = sb.finetune(tiny_bert(), out, data=conll, **LEARN)
    assert result.scores["validation"]["f1"] > 90
    assert set(result.by_class["validation"]) == {"LOC", "PER"}
    return out


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory, tiny_bert: TinyBert) -> Path:
    out = tmp_path_factory.mktemp("sparse") / "ner"
    sb.prune(tiny_bert(), out)
    return out


def test_the_model_says_what_it_is_and_is_scored_as_served(dense: Path, conll: Path) -> None:
    config = open_checkpoint(dense).config
    assert (config.raw["architectures"], config.labels) == (["BertForTokenClassification"], LABELS)
    assert "problem_type" not in config.raw
    ours, torchs = (
        sb.evaluate(dense, task="ner", data=conll, engine=each) for each in ("sparsebert", "torch")
    )
    assert ours.scores == torchs.scores
    assert ours.row().startswith("NER (F1/precision/recall): ")
    entities = sb.load(dense).tag("a b x q c y", aggregation="simple")
    assert [(each["label"], each["text"]) for each in entities] == [("PER", "x q"), ("LOC", "y")]


def test_words_behind_the_length_count_as_outside(dense: Path, conll: Path) -> None:
    cut = sb.evaluate(dense, task="ner", data=conll, max_length=8)
    assert cut.scores["validation"]["recall"] < 90 < cut.scores["validation"]["precision"]
    assert any("beyond the model's maximum length" in note for note in cut.notes)


def test_zeros_stay_and_a_teacher_teaches(
    dense: Path, sparse: Path, conll: Path, tmp_path: Path
) -> None:
    result = sb.finetune(sparse, tmp_path / "out", data=conll, teacher=dense, **LEARN)
    assert_zeros_held(tmp_path / "out", sparse)
    assert result.scores["validation"]["f1"] > 90


def test_a_stopped_run_goes_on_to_the_same_bits(sparse: Path, conll: Path, tmp_path: Path) -> None:
    sb.finetune(sparse, tmp_path / "whole", data=conll, **QUICK)
    with pytest.raises(KeyboardInterrupt):
        sb.finetune(sparse, tmp_path / "out", data=conll, progress=interrupt_at(5), **QUICK)
    sb.finetune(sparse, tmp_path / "out", data=conll, resume=True, **QUICK)
    assert_same_bits(tmp_path / "out", tmp_path / "whole")


def test_the_losses_leave_padding_and_unlabelled_tokens_out() -> None:
    """Against transformers' own loss of one row, and however rows are padded."""
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 3), torch.randint(3, (2, 5))
    labels[0, [0, 3]] = labels[1, 2:] = UNLABELLED
    expected = sum(torch.nn.functional.cross_entropy(logits[row], labels[row]) for row in range(2))
    objective = TaskObjective(Kind.TOKENS)

    def of(values: torch.Tensor, wanted: torch.Tensor) -> Any:
        return objective.of(type("Outputs", (), {"logits": values}), {"labels": wanted}, 2)

    assert float(of(logits, labels)) == pytest.approx(float(expected) / 2, rel=1e-6)
    assert float(of(logits[:1], torch.full((1, 5), UNLABELLED))) == 0  # a row without a word
    teacher, mask = torch.randn(2, 5, 3), torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = False
    found = logits_loss(Kind.TOKENS, logits, teacher, mask, 2.0)
    each = logits_loss(Kind.CLASSIFICATION, logits, teacher, mask, 2.0)
    assert np.allclose(found, [each[0].mean(), each[1, :3].mean()], rtol=1e-6)
    teacher[1, 3:] = 99.0
    assert torch.equal(found, logits_loss(Kind.TOKENS, logits, teacher, mask, 2.0))
