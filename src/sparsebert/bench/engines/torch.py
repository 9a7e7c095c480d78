"""The dense peer everyone has: transformers' own model on torch, as its users run it.

Zeros are weights like any other to it, so a sparse folder takes as long as the dense one would.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsebert.bench.engines import Engine
from sparsebert.packing import is_packed, unpack


class TorchEngine(Engine):
    """Eager fp32 under inference_mode, with transformers' default attention (SDPA)."""

    prepares = True

    def __init__(self) -> None:
        self._model: Any = None

    def missing(self) -> str | None:
        for library in ("torch", "transformers"):
            if find_spec(library) is None:
                return f"{library} is not installed: pip install 'sparsebert[bench]'"
        return None

    def prepare(self, model: Path, workspace: Path) -> Path:
        if not is_packed(model):
            return model
        unpacked = workspace / "unpacked-for-torch"
        unpack(model, unpacked)
        return unpacked

    def start(self) -> None:
        import torch  # noqa: F401
        import transformers.models.bert.modeling_bert  # noqa: F401

    def load(self, folder: Path, threads: int) -> None:
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        torch.set_num_threads(threads)
        architectures = transformers.AutoConfig.from_pretrained(folder).architectures
        model_class = getattr(transformers, architectures[0] if architectures else "AutoModel")
        self._model = model_class.from_pretrained(folder, dtype=torch.float32).eval()

    def run(self, ids: npt.NDArray[np.int64]) -> None:
        import torch

        with torch.inference_mode():
            tokens = torch.from_numpy(ids)
            # What a tokenizer hands over for one sequence length: nothing is padding.
            self._model(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                token_type_ids=torch.zeros_like(tokens),
            )

    def about(self) -> dict[str, str]:
        import torch
        import transformers

        attention = self._model.config._attn_implementation
        return {
            "version": f"torch {torch.__version__}, transformers {transformers.__version__}",
            "settings": f"eager, fp32, {attention} attention, {torch.get_num_threads()} threads",
        }


ENGINES: dict[str, Callable[[], Engine]] = {"torch": TorchEngine}
