"""torch.compile as torch's guide to inference on CPUs says: inductor, autotuned, weights frozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsebert.bench.engines.torch import TorchEngine
from sparsebert.bench.worker import Batch, Engine


class TorchCompileEngine(TorchEngine):
    """The same model, compiled anew for each shape; for padded batches once for all lengths."""

    mode = "inductor, max-autotune, weights frozen"

    def load(self, folder: Path, threads: int) -> None:
        import torch
        import torch._dynamo.config
        import torch._inductor.config

        super().load(folder, threads)
        # Freezing alone was slower than neither at 1x16 when measured; with autotuned GEMMs it was
        # the fastest there and level with the others from 128 tokens on.
        torch._inductor.config.freezing = True
        torch._dynamo.config.recompile_limit = 64  # one for each shape
        model = self._model
        mode = "max-autotune-no-cudagraphs"
        self._fixed = torch.compile(model, dynamic=False, mode=mode)
        self._varied = torch.compile(model, dynamic=True, mode=mode)

    def run(self, batch: Batch) -> Any:
        self._model = self._fixed if batch.mask.all() else self._varied
        return super().run(batch)


ENGINES: dict[str, Callable[[], Engine]] = {"torch-compile": TorchCompileEngine}
