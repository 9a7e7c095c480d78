"""The dense peers everyone has: transformers' own model on torch, as its users run it.

torch treats zeros like any other weights, so a sparse folder takes as long as the dense one would.
torch-compile is the same network, compiled as torch's guide to inference on CPUs advises: inductor,
autotuned, weights frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsebert.bench.engines import dense_folder, not_installed
from sparsebert.bench.worker import Batch, Engine
from sparsebert.checkpoint import open_checkpoint
from sparsebert.exporting.network import input_names
from sparsebert.torch_models import load_torch_model


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
        self._model = load_torch_model(folder)
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


class TorchCompileEngine(TorchEngine):
    """The same model, compiled for each shape; for padded batches, once for all lengths."""

    mode = "inductor, max-autotune, weights frozen"

    def load(self, folder: Path, threads: int) -> None:
        import torch
        import torch._dynamo.config
        import torch._inductor.config

        super().load(folder, threads)
        # At 1x16, freezing alone was slower than doing neither when measured; with autotuned GEMMs
        # it was the fastest, and level with the others from 128 tokens on.
        torch._inductor.config.freezing = True
        torch._dynamo.config.recompile_limit = 64  # one for each shape
        model = self._model
        mode = "max-autotune-no-cudagraphs"
        self._fixed = torch.compile(model, dynamic=False, mode=mode)
        self._varied = torch.compile(model, dynamic=True, mode=mode)

    def run(self, batch: Batch) -> Any:
        self._model = self._fixed if batch.mask.all() else self._varied
        return super().run(batch)


ENGINES: dict[str, Callable[[], Engine]] = {
    "torch": TorchEngine,
    "torch-compile": TorchCompileEngine,
}
