"""Every Python block of docs/export.md runs, in their order, on models of those names.

Blocks for optimum run in the Python that test_optimum.py describes, those for a GPU on one.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_optimum import VARIABLE, needs_optimum

from checkout import CHECKOUT
from sparsebert.exporting import export
from sparsebert.pruning import prune

torch = pytest.importorskip("torch")
for module in ("transformers", "onnxruntime", "openvino"):
    pytest.importorskip(module)

PAGE = CHECKOUT / "docs" / "export.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
OPTIMUM = [block for block in BLOCKS if "optimum" in block or "backend=" in block]
GPU = [block for block in BLOCKS if "cuda" in block]
HERE = [block for block in BLOCKS if block not in (*OPTIMUM, *GPU)]
TARGETS = ("onnx", "openvino", "torch-2to4")


@pytest.fixture(scope="module")
def place(tiny_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    prune(tiny_bert("encoder", hidden_size=64, intermediate_size=128), folder / "sparse")
    for target in TARGETS:
        export(folder / "sparse", folder / target, to=target)
    return folder


def run(blocks: list[str]) -> dict[str, Any]:
    """The names that the blocks leave behind."""
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)
    return namespace


def test_onnxruntime_and_openvino(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(HERE) == 2
    assert {name for block in BLOCKS for name in re.findall(r'"([\w-]+)/', block)} == set(TARGETS)
    monkeypatch.chdir(place)
    first, both = run(HERE[:1])["hidden"], run(HERE)["hidden"]
    assert first.shape == both.shape == (2, first.shape[1], 64)
    assert abs(first - both).max() < 1e-5


@needs_optimum
def test_optimum_and_sentence_transformers(place: Path) -> None:
    assert len(OPTIMUM) == 2
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [os.environ[VARIABLE], "-c", "\n".join(OPTIMUM)],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
def test_a_gpu(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert run(GPU)["hidden"].shape[-1] == 64
