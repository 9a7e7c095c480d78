"""Whatever fails while a step writes, and whenever it is killed: the old output or the new one.

`fault_runs.py` has each file operation fail in turn: an error, a full disk, a disk that turns
read-only, SIGKILL before it, SIGKILL in the middle of a write, and an input that cannot be read.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from checkout import SUPPORT
from fault_runs import WAYS, make_inputs

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.platform != "linux":
        pytest.skip("file operations are made to fail by LD_PRELOAD: on Linux")
    if not shutil.which(os.environ.get("CC", "cc")):
        pytest.skip("no C compiler: apt install gcc")
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    return folder


def run(*arguments: object) -> dict[str, int]:
    """The counts of a program's last line; all it says where something was wrong."""
    paths = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "fault_runs.py"), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return counts


@pytest.mark.parametrize("step", ["file", "folder", "embed"])
def test_every_operation(inputs: Path, step: str) -> None:
    counts = run(step, inputs)
    assert counts["kill: killed"] >= 5
    assert counts["full: refused"] >= 4


def test_some_operations_of_pruning(inputs: Path) -> None:
    assert run("prune", inputs, "--share", 0.05)["kill: killed"]


@pytest.mark.thorough
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("step", "share"),
    [("prune", 1), ("pack", 1), ("finetune", 0.05), ("seeds", 0.03), ("upstream", 0.05)],
)
def test_steps(inputs: Path, step: str, share: float, way: str) -> None:
    run(step, inputs, "--way", way, "--share", share)


@pytest.mark.thorough
def test_halving_killed_now_and_then(inputs: Path) -> None:
    assert run("halve", inputs, "--way", "kill", "--share", 0.01)["kill: killed"]
