"""`sparsebert bench` with one more engine: DeepSparse, for sparse models, discontinued in 2025.

It needs libraries too old to be installed beside the others (Python 3.11 at most, numpy 1), and so
a Python of its own, in which this file is its worker:

    python3.11 -m venv ~/deepsparse && ~/deepsparse/bin/pip install deepsparse==1.8.0
    export SPARSEBERT_DEEPSPARSE_PYTHON=~/deepsparse/bin/python
    python benchmarks/beside_deepsparse.py --random minilm --engines sparsebert-int8,deepsparse-fp32

Arguments are those of `sparsebert bench`.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

VARIABLE = "SPARSEBERT_DEEPSPARSE_PYTHON"
_STEP = 32  # tokens: padded texts get lengths that are multiples of it


class DeepSparse:
    """One compiled network per shape, since it compiles for fixed shapes; the latest are kept."""

    def start(self) -> None:
        """Import the library."""
        import deepsparse  # noqa: F401

    def load(self, folder: Path, threads: int) -> None:
        """Note what to load: it is compiled when the first shape is known."""
        import onnx

        self._file, self._threads = str(folder / "model.onnx"), threads
        self._networks: dict[tuple[int, int], Any] = {}
        graph = onnx.load(self._file, load_external_data=False).graph
        self._inputs = [given.name for given in graph.input]

    def run(self, batch: Any) -> Any:
        """The logits or hidden states, padding included."""
        inputs = list(batch.named(self._inputs).values())
        if not batch.mask.all():
            padding = -batch.ids.shape[1] % _STEP
            inputs = [np.pad(array, ((0, 0), (0, padding))) for array in inputs]
        return self._network(inputs[0].shape).run(inputs, val_inp=False)[0]

    def about(self) -> dict[str, str]:
        """Version and settings, as for every engine."""
        import deepsparse

        return {
            "version": f"deepsparse {deepsparse.__version__}",
            "settings": f"fp32, compiled for each shape, {self._threads} cores, "
            f"{deepsparse.cpu.cpu_architecture().isa}",
        }

    def _network(self, shape: tuple[int, int]) -> Any:
        import deepsparse

        if shape not in self._networks:
            # A network of BERT-base takes some 500 MB: keep one per length of padded texts,
            while len(self._networks) > 512 // _STEP:  # and one for the last, smaller batch.
                del self._networks[next(iter(self._networks))]
            # It writes the shapes into its file, which other engines load too: give it a copy.
            with tempfile.TemporaryDirectory() as folder:
                self._networks[shape] = deepsparse.Engine(
                    shutil.copy(self._file, folder),
                    batch_size=shape[0],
                    num_cores=self._threads,
                    input_shapes=[list(shape)] * len(self._inputs),
                )
        return self._networks[shape]


def register() -> None:
    """Add "deepsparse-fp32" to the engines of `sparsebert bench`."""
    from sparsebert.bench import worker
    from sparsebert.bench.engines import known_engines, not_installed, onnx_folder

    class DeepSparseSetup(worker.Setup):
        """Its worker loads the ONNX export before ONNX Runtime's fusion: it fuses by itself."""

        def missing(self) -> str | None:
            python = os.environ.get(VARIABLE)
            if python is None:
                return (
                    "deepsparse needs a Python of its own: python3.11 -m venv DIR, "
                    f"DIR/bin/pip install deepsparse==1.8.0, then set {VARIABLE}=DIR/bin/python"
                )
            if not os.access(python, os.X_OK):
                return f"{VARIABLE} is {python}, which is not a program"
            return not_installed("onnx", "torch", "transformers")

        def prepare(self, model: Path, workspace: Path) -> Path:
            return onnx_folder(model, workspace)

        def prepare_command(self, name: str) -> list[str]:
            return [sys.executable, __file__, "prepare"]

        def command(self, name: str) -> list[str]:
            return [os.environ[VARIABLE], __file__, "serve", worker.__file__]

    known_engines()["deepsparse-fp32"] = DeepSparseSetup


def main(arguments: list[str]) -> None:
    """Run a worker, or the command line of `sparsebert bench`."""
    if arguments[:1] == ["serve"]:  # in DeepSparse's own Python, which does not have sparsebert
        runpy.run_path(arguments[1])["serve"](DeepSparse())
        return
    register()
    if arguments == ["prepare"]:
        from sparsebert.bench.engines import known_engines
        from sparsebert.bench.worker import serve

        serve(known_engines()["deepsparse-fp32"]())  # type: ignore[arg-type]  # it only prepares
        return
    from sparsebert.cli import main as command_line

    sys.argv = ["sparsebert", "bench", *arguments]
    command_line()


if __name__ == "__main__":
    main(sys.argv[1:])
