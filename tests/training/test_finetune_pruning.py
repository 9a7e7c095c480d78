"""Pruning while fine-tuning: a dense folder becomes a sparse one, resumed runs, refusals."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from typer.testing import CliRunner

from bert_folders import write_bert
from short_runs import QUICK, weights
from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.cli.app import app
from sparsebert.errors import PatternError, TrainingError
from sparsebert.patterns import Pattern, is_whole
from sparsebert.pruning import prune
from sparsebert.pruning.gradual import SparsitySchedule
from sparsebert.pruning.inspection import inspect
from sparsebert.pruning.methods import When, method_names
from sparsebert.training import finetune
from sparsebert.training.gradual_pruning import PRUNER_STATE_NAME, rewound_rate
from sparsebert.training.options import METHODS as OPTION_METHODS
from sparsebert.training.options import FinetuneOptions
from sparsebert.training.task_model import sparsity_record

# 60 rows in batches of 8: 16 steps, of which 1 is warm-up and 7 are the schedule.
SCHEDULE = SparsitySchedule(start=1, end=8, interval=1, steps=16)
METHODS = ("gradual", "snip-momentum")


pytestmark = pytest.mark.usefixtures("short_garbage_collections")


@pytest.fixture(scope="module", params=METHODS)
def pruned(
    request: pytest.FixtureRequest, dense: Path, data: Path, tmp_path_factory: Any
) -> tuple[Path, str]:
    """A folder pruned while it was fine-tuned, and how."""
    out = tmp_path_factory.mktemp("pruned") / "task"
    finetune(dense, out, data=data, method=request.param, **QUICK)
    return out, request.param


def test_the_result_is_a_whole_sparse_folder(pruned: tuple[Path, str], dense: Path) -> None:
    out, method = pruned
    found = inspect(out)
    assert found.whole
    assert found.form == "sparse"
    sparse = [layer for layer in found.layers if layer.recorded]
    assert len(sparse) == 12
    assert all(layer.part == "encoder" and layer.pattern == "1:2" for layer in sparse)

    tensors = weights(out)
    masks = read_masks(open_checkpoint(out))
    assert masks.keys() == {layer.name for layer in sparse}
    for name, mask in masks.items():
        assert is_whole(mask, Pattern(1, 2))
        weight = tensors["bert." + name]
        assert not weight[~mask].view(np.int32).any()
        assert weight[mask].all()

    record = json.loads((out / "config.json").read_text())["sparsity"]
    assert (record["pattern"], record["method"]) == ("1:2", method)
    assert record["layers"] == sorted(masks)
    (step,) = record["lineage"]
    assert (step["step"], step["arguments"]["method"]) == ("finetune", method)
    assert not list(out.glob(PRUNER_STATE_NAME))
    assert not out.with_name("task.training").exists()


def test_the_learning_rate_is_rewound(pruned: tuple[Path, str]) -> None:
    history = json.loads((pruned[0] / "training.json").read_text())["history"]
    rates = {int(each["step"]): each["learning_rate"] for each in history}
    expected = {step + 1: 1e-3 * rewound_rate(SCHEDULE, step) for step in range(SCHEDULE.steps)}
    assert rates == pytest.approx(expected)
    assert rates[9] == pytest.approx(1e-3)


def test_a_pruned_folder_is_fine_tuned_with_the_lock(
    pruned: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    finetune(pruned[0], tmp_path / "on", data=data, **{**QUICK, "epochs": 1})
    before, after = (read_masks(open_checkpoint(each)) for each in (pruned[0], tmp_path / "on"))
    assert all(np.array_equal(after[name], mask) for name, mask in before.items())
    with pytest.raises(PatternError, match="all encoder layers of .* are already sparse"):
        finetune(pruned[0], tmp_path / "again", data=data, method="gradual", **QUICK)


@pytest.mark.parametrize("at", [5, 12], ids=["while it prunes", "after it"])
def test_a_resumed_run_gives_the_same_bits(
    pruned: tuple[Path, str], dense: Path, data: Path, tmp_path: Path, at: int
) -> None:
    def interrupt(label: str, done: int, total: int) -> None:
        if label == "fine-tuning" and done == at:
            signal.raise_signal(signal.SIGINT)

    expected, method = pruned
    settings = {"data": data, "method": method, **QUICK}
    out = tmp_path / "task"
    with pytest.raises(KeyboardInterrupt, match=f"after step {at} of 16"):
        finetune(dense, out, progress=interrupt, **settings)
    result = finetune(dense, out, resume=True, **settings)
    assert result.resumed_from == at
    left, right = weights(expected), weights(out)
    assert left.keys() == right.keys()
    for name, values in left.items():
        assert np.array_equal(values.view(np.int32), right[name].view(np.int32)), name
    assert (out / "masks.safetensors").read_bytes() == (expected / "masks.safetensors").read_bytes()


def test_accumulated_batches_prune_alike(dense: Path, data: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "dropout": 0.0, "precision": "fp32", "method": "snip-momentum"}
    finetune(dense, tmp_path / "whole", data=data, **settings)
    settings |= {"batch_size": 2, "gradient_accumulation": 4}
    finetune(dense, tmp_path / "parts", data=data, **settings)
    whole, parts = (read_masks(open_checkpoint(tmp_path / each)) for each in ("whole", "parts"))
    for name, mask in whole.items():
        assert np.mean(mask == parts[name]) > 0.99  # near ties may fall either way


def test_another_pattern(dense: Path, data: Path, tmp_path: Path) -> None:
    finetune(dense, tmp_path / "task", data=data, method="gradual", pattern="2:4", **QUICK)
    found = inspect(tmp_path / "task")
    assert found.whole
    assert found.pattern == "2:4"
    for mask in read_masks(open_checkpoint(tmp_path / "task")).values():
        assert is_whole(mask, Pattern(2, 4))
        assert not is_whole(mask, Pattern(1, 2))


@pytest.mark.parametrize("method", METHODS)
def test_rows_that_share_their_inputs(dense: Path, data: Path, tmp_path: Path, method: str) -> None:
    """And training goes on with their zeros locked."""
    pattern = Pattern(1, 2, 16)
    finetune(dense, tmp_path / "task", data=data, method=method, shared_rows=16, **QUICK)
    finetune(tmp_path / "task", tmp_path / "on", data=data, **{**QUICK, "epochs": 1})
    for folder in (tmp_path / "task", tmp_path / "on"):
        checkpoint = open_checkpoint(folder)
        assert checkpoint.config.recorded_pattern == pattern
        masks = read_masks(checkpoint)
        assert len(masks) == 12
        assert all(is_whole(mask, pattern) for mask in masks.values())
        assert inspect(folder).whole


def test_layers_that_are_sparse_keep_their_masks(dense: Path, data: Path, tmp_path: Path) -> None:
    """A pooler that was pruned stays as it is while the encoder is being pruned."""
    prune(dense, tmp_path / "pooler", parts=["pooler"])
    finetune(tmp_path / "pooler", tmp_path / "task", data=data, method="gradual", **QUICK)
    name = "pooler.dense.weight"
    (before,) = read_masks(open_checkpoint(tmp_path / "pooler")).values()
    after = read_masks(open_checkpoint(tmp_path / "task"))
    assert np.array_equal(after[name], before)
    assert len(after) == 13
    assert inspect(tmp_path / "task").whole


class TestRefusals:
    def test_a_pattern_that_does_not_divide(self, dense: Path, data: Path, tmp_path: Path) -> None:
        message = "layer 'encoder.layer.0.attention.self.query.weight' has an input dimension of 32"
        with pytest.raises(PatternError, match=message):
            finetune(dense, tmp_path / "t", data=data, method="gradual", pattern="1:3", **QUICK)
        assert not list(tmp_path.iterdir())

    def test_a_run_too_short(self, dense: Path, data: Path, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="a run of 8 steps .* is too short to prune"):
            finetune(dense, tmp_path / "t", data=data, method="gradual", **{**QUICK, "epochs": 1})
        assert not list(tmp_path.iterdir())

    def test_a_layer_of_another_pattern(self, dense: Path, data: Path, tmp_path: Path) -> None:
        prune(dense, tmp_path / "pooler", parts=["pooler"], pattern="2:4")
        with pytest.raises(PatternError, match="'pooler.dense.weight' is already sparse, but not"):
            finetune(tmp_path / "pooler", tmp_path / "t", data=data, method="gradual", **QUICK)

    @pytest.mark.parametrize("method", METHODS)
    def test_one_shot(self, dense: Path, tmp_path: Path, method: str) -> None:
        message = f"'{method}' is a fine-tuning method: use it in finetune instead."
        with pytest.raises(PatternError, match=message):
            prune(dense, tmp_path / "t", method=method)
        told = CliRunner().invoke(app, ["prune", str(dense), "out", "--method", method])
        assert told.exit_code == 2
        assert message in " ".join(told.stderr.replace("│", "").split())


def test_the_methods_are_those_of_the_table() -> None:
    assert OPTION_METHODS == ("lock", *method_names(When.FINE_TUNING)) == ("lock", *METHODS)


def test_only_layers_that_have_the_pattern_are_recorded(tmp_path: Path) -> None:
    """Not a layer of another pattern, and nothing if the only one was a head that is replaced."""
    sparse, head = tmp_path / "sparse", "classifier.weight"
    prune(write_bert(tmp_path / "dense", "sequence-classification"), sparse, parts=("head",))
    checkpoint = open_checkpoint(sparse)
    raw = checkpoint.config.raw
    assert (raw["sparsity"]["pattern"], raw["sparsity"]["layers"]) == ("1:2", [head])
    other = {"pooler.dense.weight": np.tile([True, False, False, False], (8, 2))}
    masks = {**read_masks(checkpoint), **other}
    record = sparsity_record(raw, checkpoint, masks, FinetuneOptions())["sparsity"]
    assert (record["pattern"], record["layers"]) == ("1:2", [head])
    record = sparsity_record(raw, checkpoint, {}, FinetuneOptions())["sparsity"]
    assert (record["pattern"], record["layers"]) == (None, [])
    assert record["lineage"] == raw["sparsity"]["lineage"]
