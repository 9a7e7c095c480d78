"""The dense peer everyone has: transformers' own model on torch, as its users run it.

Zeros are weights like any other to it, so a sparse folder takes as long as the dense one would.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsebert.bench.engines import not_installed
from sparsebert.bench.exports import dense_folder
from sparsebert.bench.worker import Batch, Engine
from sparsebert.checkpoint import open_checkpoint
from sparsebert.exporting.network import input_names, transformers_network


class TorchEngine(Engine):
    """Eager fp32 under inference_mode, with transformers' default attention (SDPA)."""

    mode = "eager"

    def __init__(self) -> None:
        self._model: Any = None
        self._attention = ""

    def missing(self) -> str | None:
        return not_installed("torch", "transformers")

    def prepare(self, model: Path, workspace: Path) -> Path:
        return dense_folder(model, workspace)

    def start(self) -> None:
        import torch  # noqa: F401
        import transformers.modeling_utils  # noqa: F401

    def load(self, folder: Path, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._inputs = input_names(open_checkpoint(folder).config)
        self._model = transformers_network(folder)
        self._attention = self._model.config._attn_implementation

    def run(self, batch: Batch) -> Any:
        import torch

        with torch.inference_mode():
            arrays = batch.named(self._inputs)
            given = {name: torch.from_numpy(array) for name, array in arrays.items()}
            return self._model(**given, return_dict=False)[0]

    def about(self) -> dict[str, str]:
        import torch
        import transformers

        return {
            "version": f"torch {torch.__version__}, transformers {transformers.__version__}",
            "settings": f"{self.mode}, fp32, {self._attention} attention, "
            f"{torch.get_num_threads()} threads",
        }


ENGINES: dict[str, Callable[[], Engine]] = {"torch": TorchEngine}
