"""DeepSparse, for unstructured sparsity and discontinued in 2025, from a Python of its own.

It wants libraries too old to stand beside the others (Python 3.11 at most, numpy 1). That Python is
named by an environment variable; `deepsparse_worker.py` runs there.

    python3.11 -m venv ~/deepsparse && ~/deepsparse/bin/pip install deepsparse==1.8.0
    export SPARSEBERT_DEEPSPARSE_PYTHON=~/deepsparse/bin/python
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import sparsebert.bench
from sparsebert.bench.engines import Setup, not_installed
from sparsebert.bench.exports import onnx_folder

VARIABLE = "SPARSEBERT_DEEPSPARSE_PYTHON"


class DeepSparseSetup(Setup):
    """Its worker loads the same ONNX export as ONNX Runtime, not fused: it fuses by itself."""

    def missing(self) -> str | None:
        python = os.environ.get(VARIABLE)
        if python is None:
            return (
                "deepsparse needs a Python of its own: python3.11 -m venv DIR, "
                f"DIR/bin/pip install deepsparse==1.8.0, then set {VARIABLE}=DIR/bin/python"
            )
        if not os.access(python, os.X_OK):
            return f"{VARIABLE} is {python}, which is no program"
        return not_installed("onnx", "torch", "transformers")

    def prepare(self, model: Path, workspace: Path) -> Path:
        return onnx_folder(model, workspace)

    def command(self, name: str) -> list[str]:
        worker = Path(sparsebert.bench.__file__).with_name("deepsparse_worker.py")
        return [os.environ[VARIABLE], str(worker)]


ENGINES: dict[str, Callable[[], Setup]] = {"deepsparse-fp32": DeepSparseSetup}
