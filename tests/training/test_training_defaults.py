"""What a fine-tuning takes where nothing was asked for, and recipes that come by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("pyarrow")

from sparsebert.checkpoint import open_checkpoint
from sparsebert.errors import TrainingError
from sparsebert.tasks.table import get_task
from sparsebert.training import finetune
from sparsebert.training.defaults import with_defaults
from sparsebert.training.options import FinetuneOptions
from sparsebert.training.recipe import read_recipe
from tiny_tasks import write_classification

NAMES = ("epochs", "learning_rate", "dropout", "max_length")


def chosen(folder: Path, rows: int = 10_000, task: str = "sst2", **asked: Any) -> tuple[Any, ...]:
    options = with_defaults(
        FinetuneOptions.from_names(asked), open_checkpoint(folder), get_task(task), rows
    )
    return tuple(getattr(options, name) for name in NAMES)


@pytest.fixture(scope="module")
def wide(tiny_bert: Any) -> Path:
    """As wide as BERT-base, of one layer and few words."""
    folder: Path = tiny_bert(
        "encoder",
        hidden_size=768,
        num_hidden_layers=1,
        intermediate_size=64,
        max_position_embeddings=512,
    )
    return folder


def test_a_wide_dense_model_trains_as_bert_base_does(wide: Path) -> None:
    assert chosen(wide) == (3.0, 5e-5, None, 128)
    assert chosen(wide, task="squad") == (3.0, 5e-5, None, 384)


def test_a_sparse_or_small_one_without_dropout(wide: Path, dense: Path, tmp_path: Path) -> None:
    from sparsebert.pruning import prune

    prune(wide, tmp_path / "sparse")
    assert chosen(tmp_path / "sparse") == (3.0, 5e-5, 0.0, 128)
    assert chosen(wide, method="gradual") == (3.0, 5e-5, 0.0, 128)
    assert chosen(dense) == (3.0, 1e-4, 0.0, 64)  # it has 64 positions


@pytest.mark.parametrize(
    ("rows", "batch", "epochs"),
    [(3200, 32, 3), (3199, 32, 4), (576, 32, 17), (100, 32, 20), (1, 32, 20), (576, 8, 5)],
)
def test_few_rows_are_gone_through_more_often(
    dense: Path, rows: int, batch: int, epochs: int
) -> None:
    assert chosen(dense, rows, batch_size=batch)[0] == epochs
    assert chosen(dense, rows, batch_size=batch // 2, gradient_accumulation=2)[0] == epochs


def test_what_is_asked_for_is_taken(dense: Path) -> None:
    asked = {"epochs": 0.5, "learning_rate": 3e-5, "dropout": 0.1, "max_length": 16}
    assert chosen(dense, 10, **asked) == (0.5, 3e-5, 0.1, 16)


def test_what_was_chosen_is_written_down(sparse: Path, tmp_path: Path) -> None:
    data = write_classification(tmp_path / "data", train=16, validation=4)
    finetune(sparse, tmp_path / "out", task="custom", data=data, batch_size=16)
    arguments = json.loads((tmp_path / "out/training.json").read_text())["arguments"]
    assert [arguments[name] for name in NAMES] == [20.0, 1e-4, 0.0, 64]
    recipe = read_recipe(tmp_path / "out/recipe.yaml")
    assert [recipe[name] for name in NAMES] == [20.0, 1e-4, 0.0, 64]


class TestRecipesByName:
    def test_those_of_our_runs_come_with_the_package(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        best = read_recipe("best")
        assert (best["learning_rate"], best["hidden_weight"]) == (1e-4, 1.0)
        assert read_recipe("dense")["learning_rate"] == 5e-5
        # A file of that name comes first.
        (tmp_path / "best").write_text("version: 1\nepochs: 9\n")
        assert read_recipe("best") == {"epochs": 9}

    @pytest.mark.parametrize("name", ["bset", "../best"])
    def test_others_are_named(self, name: str) -> None:
        with pytest.raises(
            TrainingError, match=r"no recipe 'bset': .*best, .*oneshot|cannot be re"
        ):
            read_recipe(name)

    def test_one_with_a_teacher_asks_for_it(self, sparse: Path, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="no meaning without a teacher: name one"):
            finetune(sparse, tmp_path / "out", task="sst2", data=tmp_path, recipe="best")
