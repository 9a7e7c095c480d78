"""The worker of DeepSparse, run by its path in DeepSparse's own Python: sparsebert is not there."""

from __future__ import annotations

import runpy
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

_STEP = 32  # tokens: padded texts get lengths that are multiples of it


class DeepSparse:
    """One compiled network a shape, for it compiles for fixed shapes; the latest few are kept."""

    def start(self) -> None:
        """Import the library."""
        import deepsparse  # noqa: F401

    def load(self, folder: Path, threads: int) -> None:
        """Note what to load: it compiles when the first shape is known."""
        import onnx

        self._file, self._threads = str(folder / "model.onnx"), threads
        self._networks: dict[tuple[int, int], Any] = {}
        graph = onnx.load(self._file, load_external_data=False).graph
        self._inputs = [given.name for given in graph.input]

    def run(self, batch: Any) -> Any:
        """The logits or hidden states, with what was padded."""
        inputs = list(batch.named(self._inputs).values())
        if not batch.mask.all():
            padding = -batch.ids.shape[1] % _STEP
            inputs = [np.pad(array, ((0, 0), (0, padding))) for array in inputs]
        return self._network(inputs[0].shape).run(inputs, val_inp=False)[0]

    def about(self) -> dict[str, str]:
        """Version and settings, as every engine tells them."""
        import deepsparse

        return {
            "version": f"deepsparse {deepsparse.__version__}",
            "settings": f"fp32, compiled for each shape, {self._threads} cores, "
            f"{deepsparse.cpu.cpu_architecture().isa}",
        }

    def _network(self, shape: tuple[int, int]) -> Any:
        import deepsparse

        if shape not in self._networks:
            # A network of BERT-base holds some 500 MB: no more than texts of all lengths need.
            while len(self._networks) > 512 // _STEP:  # and one for the last, smaller batch
                del self._networks[next(iter(self._networks))]
            # It writes the shapes into the file it is given, and other engines load that too.
            with tempfile.TemporaryDirectory() as folder:
                self._networks[shape] = deepsparse.Engine(
                    shutil.copy(self._file, folder),
                    batch_size=shape[0],
                    num_cores=self._threads,
                    input_shapes=[list(shape)] * len(self._inputs),
                )
        return self._networks[shape]


if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).with_name("worker.py")))["serve"](DeepSparse())
