"""Several processes that train one model: what one process comes to, with its masks whole.

Two processes are started once, by torchrun, and do all of `rank_runs`; what they leave behind is
held against the same runs in this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytest.importorskip("pyarrow")

from checkout import SUPPORT
from sentences import SENTENCES
from short_runs import assert_same_bits, assert_zeros_held, weights
from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.errors import TrainingError
from sparsebert.pruning import prune
from sparsebert.pruning.inspection import inspect
from sparsebert.training import finetune, prune_upstream
from sparsebert.training.batches import BatchPlan, LengthBuckets, RankBatches
from tiny_models import TinyBert
from tiny_tasks import write_classification

pytestmark = pytest.mark.thorough

# 57 rows in steps of 8: the last step has one, so that one process has nothing to do in it.
ROWS = 57
PLAIN: dict[str, Any] = {
    "task": "custom",
    "epochs": 2,
    "learning_rate": 1e-3,
    "dropout": 0.0,
    "precision": "fp32",
}
ACCUMULATED = {**PLAIN, "batch_size": 2, "gradient_accumulation": 4, "embeddings": "used"}
WHOLE = {**PLAIN, "batch_size": 8}
UPSTREAM: dict[str, Any] = {
    "method": "magnitude",
    "epochs": 2,
    "batch_size": 8,
    "max_length": 64,
    "learning_rate": 1e-3,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def folder(tiny_bert: TinyBert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and data, and what two processes made of them."""
    place = tmp_path_factory.mktemp("ranks")
    data = write_classification(place / "data", train=ROWS)
    (place / "dense").symlink_to(tiny_bert("encoder"))
    (place / "masked-lm").symlink_to(tiny_bert("masked-lm"))
    prune(place / "dense", place / "sparse")
    finetune(place / "dense", place / "teacher", data=data, **WHOLE)
    (place / "corpus.txt").write_text("\n".join(SENTENCES))
    (place / "options.json").write_text(json.dumps([*options(place)], default=str))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    script = [str(SUPPORT / "rank_runs.py"), str(place)]
    done = subprocess.run(
        [*launcher, "--nproc-per-node", "2", *script],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return place


def options(place: Path) -> tuple[dict[str, Any], ...]:
    data = {"data": place / "data"}
    gradual = {"method": "snip-momentum", "teacher": place / "teacher", "hidden_weight": 1.0}
    return (
        {**ACCUMULATED, **data},
        {**WHOLE, **data},
        {**WHOLE, **data, **gradual},
        {**UPSTREAM, "corpus": place / "corpus.txt"},
    )


@pytest.fixture(scope="module")
def told(folder: Path) -> list[dict[str, Any]]:
    """What each process says."""
    return [json.loads((folder / f"told-{rank}.json").read_text()) for rank in (0, 1)]


def assert_close(first: Path, second: Path, most: float = 2e-5) -> None:
    """Weights are equal up to what sums round in another order.

    Not so the biases of keys: they add the same to all scores of a softmax, so their gradient is
    zero but for rounding, of which Adam makes steps as long as any.
    """
    left, right = weights(first), weights(second)
    assert left.keys() == right.keys()
    for name, values in left.items():
        if name.endswith("key.bias"):
            continue
        assert np.abs(values - right[name]).max() < most, name


class TestTwoProcesses:
    def test_they_come_to_what_one_comes_to(
        self, folder: Path, told: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        finetune(folder / "sparse", tmp_path / "one", **options(folder)[0])
        assert_close(folder / "two", tmp_path / "one")
        assert_zeros_held(folder / "two", folder / "sparse")
        records = [
            json.loads((place / "training.json").read_text())
            for place in (folder / "two", tmp_path / "one")
        ]
        losses = [[each["loss"] for each in record["history"]] for record in records]
        norms = [[each["grad_norm"] for each in record["history"]] for record in records]
        assert losses[0] == pytest.approx(losses[1], abs=2e-4)
        assert norms[0] == pytest.approx(norms[1], rel=1e-3)
        plans = [
            [record[name] for name in ("batch_size", "gradient_accumulation", "processes")]
            for record in records
        ]
        assert plans == [[2, 2, 2], [2, 4, 1]]
        assert records[0]["scores"] == records[1]["scores"]

    def test_all_have_the_same_weights(self, told: list[dict[str, Any]]) -> None:
        plain = [each["digests"][:5] for each in told]
        assert plain[0] == plain[1]
        assert len({*plain[0]}) == 4  # the second is the first, stopped and resumed

    def test_a_stop_is_resumed_to_the_same_bits(
        self, folder: Path, told: list[dict[str, Any]]
    ) -> None:
        for each in told:
            assert each["stop"].startswith("stopped after step 11 of 16")
            assert each["resumed_from"] == 11
        assert_same_bits(folder / "resumed", folder / "two")
        assert not (folder / "resumed.training").exists()

    def test_pruning_is_alike(self, folder: Path, tmp_path: Path) -> None:
        finetune(folder / "dense", tmp_path / "one", **options(folder)[2])
        assert inspect(folder / "gradual").whole
        one, two = (
            read_masks(open_checkpoint(place)) for place in (tmp_path / "one", folder / "gradual")
        )
        # Saliencies are sums of rounded numbers: two that are all but equal may change places.
        same = [np.mean(one[name] == two[name]) for name in one]
        assert min(same) > 0.99

    def test_upstream(self, folder: Path, tmp_path: Path) -> None:
        prune_upstream(folder / "masked-lm", tmp_path / "one", **options(folder)[3])
        assert_close(folder / "upstream", tmp_path / "one")
        assert inspect(folder / "upstream").whole

    def test_only_the_main_one_writes_and_tells(
        self, folder: Path, told: list[dict[str, Any]]
    ) -> None:
        first, second = (each["command"] for each in told)
        assert (first["code"], second["code"], second["stdout"]) == (0, 0, ""), first["stderr"]
        assert json.loads(first["stdout"])["steps"] == 4
        assert told[0]["result"] == told[1]["result"]
        assert "two exists: remove it" in told[0]["error"]
        assert told[1]["end"] == 1
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


class TestSharded:
    def test_masks_hold_on_each_part(
        self, folder: Path, told: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        finetune(folder / "sparse", tmp_path / "one", **options(folder)[1])
        assert_close(folder / "sharded", tmp_path / "one")
        assert_zeros_held(folder / "sharded", folder / "sparse")
        assert told[0]["digests"][5] != told[1]["digests"][5]  # each had a part

    def test_a_stop_is_resumed(self, folder: Path, told: list[dict[str, Any]]) -> None:
        assert [each["sharded_resumed_from"] for each in told] == [11, 11]
        assert_close(folder / "sharded-resumed", folder / "sharded", most=1e-6)
        assert_zeros_held(folder / "sharded-resumed", folder / "sparse")

    def test_what_needs_whole_weights_is_refused(self, told: list[dict[str, Any]]) -> None:
        embeddings = "embeddings used trains only some rows"
        reasons = (embeddings, "method gradual", "early_stopping 1 scores")
        for each in told:
            for message, reason in zip(each["refused"], reasons):
                assert reason in message
                assert "cannot be used with FSDP" in message


class TestPlan:
    @pytest.mark.parametrize(
        ("plan", "processes", "spread"),
        [
            ((32, 1), 2, (16, 1, 2)),
            ((32, 4), 2, (32, 2, 2)),
            ((6, 3), 2, (3, 3, 2)),
            ((6, 2), 4, (3, 1, 4)),
            ((1, 8), 4, (1, 2, 4)),
            ((32, 1), 1, (32, 1, 1)),
        ],
    )
    def test_a_step_is_divided(
        self, plan: tuple[int, int], processes: int, spread: tuple[int, int, int]
    ) -> None:
        found = BatchPlan(*plan).spread(processes)
        assert found == BatchPlan(*spread)
        assert found.examples_per_step == plan[0] * plan[1]

    def test_what_cannot_be_divided(self) -> None:
        with pytest.raises(TrainingError, match=r"the 32 rows .* among 3 processes"):
            BatchPlan(32, 1).spread(3)

    @pytest.mark.parametrize("rows", [1, 7, 8, 57, 64])
    @pytest.mark.parametrize("plan", [BatchPlan(2, 2, 2), BatchPlan(4, 1, 2), BatchPlan(1, 2, 3)])
    def test_together_they_take_each_step_once(self, rows: int, plan: BatchPlan) -> None:
        lengths = np.arange(rows) % 9 + 1
        buckets = LengthBuckets(lengths, plan.examples_per_step, seed=3)
        buckets.set_epoch(1)
        shares = [RankBatches(buckets, plan, rank) for rank in range(plan.processes)]
        taken = [list(share) for share in shares]
        assert {len(each) for each in taken} == {len(share) for share in shares}
        order = buckets.order().tolist()
        for step in range(plan.steps(rows, 1)):
            mine = slice(step * plan.accumulation, (step + 1) * plan.accumulation)
            found = [row for each in taken for batch in each[mine] for row in batch]
            start = step * plan.examples_per_step
            assert sorted(found) == sorted(order[start : start + plan.examples_per_step])
