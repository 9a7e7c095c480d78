"""Fine-tuning on several labels a row: what is recorded, served and scored, and a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import sparsebert as sb
from short_runs import LEARN, assert_zeros_held
from sparsebert.checkpoint import open_checkpoint
from sparsebert.errors import CheckpointError
from sparsebert.tasks.table import Kind
from sparsebert.training.distillation.losses import logits_loss
from sparsebert.training.objective import TaskObjective
from tiny_models import TinyBert
from tiny_tasks import write_classification, write_label_sets

LONGER = {**LEARN, "epochs": 20}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_label_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory, tiny_bert: TinyBert, data: Path) -> Path:
    out = tmp_path_factory.mktemp("dense") / "sets"
    result = sb.finetune(tiny_bert(), out, data=data, **LONGER)
    assert result.scores["validation"]["micro_f1"] > 90
    return out


def test_the_folder_says_what_it_is_and_is_served_so(dense: Path, data: Path) -> None:
    raw = open_checkpoint(dense).config.raw
    assert raw["problem_type"] == "multi_label_classification"
    assert list(raw["id2label"].values()) == ["x", "y", "z"]
    ours, torchs = (
        sb.evaluate(dense, task="custom", data=data, engine=each)
        for each in ("sparsebert", "torch")
    )
    assert ours.scores == torchs.scores
    assert ours.row().startswith("custom (micro F1/macro F1/average precision): ")
    scores = {each["label"]: each["score"] for each in sb.load(dense).classify("a x b z c")}
    assert min(scores["x"], scores["z"]) > 0.5 > scores["y"]  # each its own probability
    strict = sb.evaluate(dense, task="custom", data=data, threshold=0.999)
    assert strict.scores != ours.scores


def test_a_model_of_one_label_is_refused(
    dense: Path, tmp_path: Path, tiny_bert: TinyBert, data: Path
) -> None:
    other = write_classification(tmp_path / "data")
    with pytest.raises(CheckpointError, match="gives a text several labels, but the rows have one"):
        sb.evaluate(dense, task="custom", data=other, label_column="label")
    single = tiny_bert("sequence-classification", num_labels=3, id2label={0: "x", 1: "y", 2: "z"})
    with pytest.raises(CheckpointError, match="gives a text one label, but the rows have several"):
        sb.evaluate(single, task="custom", data=data)


@pytest.mark.thorough
def test_a_teacher_teaches_and_zeros_stay(
    dense: Path, tiny_bert: TinyBert, data: Path, tmp_path: Path
) -> None:
    sb.prune(tiny_bert(), tmp_path / "sparse")
    result = sb.finetune(tmp_path / "sparse", tmp_path / "out", data=data, teacher=dense, **LONGER)
    assert_zeros_held(tmp_path / "out", tmp_path / "sparse")
    assert result.scores["validation"]["micro_f1"] > 85


def test_the_losses_are_those_of_torch() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 3), torch.randint(2, (4, 3)).float()
    outputs: Any = type("Outputs", (), {"logits": logits})
    expected = torch.nn.BCEWithLogitsLoss()(logits, labels)
    assert torch.allclose(
        TaskObjective(Kind.LABEL_SETS).of(outputs, {"labels": labels}, 4), expected
    )
    teacher, heat = torch.randn(4, 3), 2.0
    yes, guess = torch.sigmoid(teacher / heat), torch.sigmoid(logits / heat)
    apart = yes * (yes / guess).log() + (1 - yes) * ((1 - yes) / (1 - guess)).log()
    mask = torch.ones(4, 1, dtype=torch.bool)
    found = logits_loss(Kind.LABEL_SETS, logits, teacher, mask, heat)
    assert torch.allclose(found, heat**2 * apart.mean(1), atol=1e-5)
