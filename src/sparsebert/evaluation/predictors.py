"""Two ways to compute a task's logits: our engine, and transformers on torch.

Both take token ids without padding and return float32 numpy arrays in the order of the examples:
``[examples, labels]`` for sequence classification, a list of ``[tokens, labels]`` for token
classification, and a list of ``[tokens, 2]`` (start, end) for question answering.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sparsebert.checkpoint.families import Head
from sparsebert.progress import Progress
from sparsebert.tasks.tokens import TokenRows
from sparsebert.torch_models import load_torch_model, run_in_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sparsebert.inference import Model

_ENGINE_CHUNK = 512  # examples passed to the engine between two progress reports


class Predictor(Protocol):
    """Something that computes the logits of a model's head from token ids."""

    name: str

    def predict(self, tokens: TokenRows, head: Head, label: str, progress: Progress) -> Any:
        """Logits of all examples, in the module's format; ``label`` is shown with the progress."""


class EnginePredictor:
    """Our own engine."""

    name = "sparsebert"

    def __init__(self, model: Model, batch_size: int) -> None:
        self._model = model
        self._batch_size = batch_size

    def predict(self, tokens: TokenRows, head: Head, label: str, progress: Progress) -> Any:
        order = np.argsort(-tokens.lengths, kind="stable")
        found: list[Any] = [None] * len(tokens)
        for start in range(0, len(tokens), _ENGINE_CHUNK):
            chunk = order[start : start + _ENGINE_CHUNK]
            ids, type_ids = zip(*(tokens.row(index) for index in chunk), strict=True)
            kinds = type_ids if self._model.config.token_types else None
            logits = self._model.forward(ids, kinds, batch_size=self._batch_size)
            for index, row in zip(chunk, logits, strict=True):
                found[index] = row
            progress(label, start + len(chunk), len(tokens))
        return np.stack(found) if head is Head.SEQUENCE else found


class TorchPredictor:
    """A transformers model on torch, in batches of similar length."""

    name = "torch"

    def __init__(self, model: PreTrainedModel, batch_size: int) -> None:
        self._model = model
        self._batch_size = batch_size

    @classmethod
    def load(cls, folder: Path, batch_size: int) -> TorchPredictor:
        """The folder's model in fp32, as any user of transformers would load it."""
        return cls(load_torch_model(folder), batch_size)

    def predict(self, tokens: TokenRows, head: Head, label: str, progress: Progress) -> Any:
        found = run_in_batches(
            self._model,
            tokens,
            self._batch_size,
            lambda output, *_: _logits(output, head),
            progress,
            label,
        )
        if head is Head.SEQUENCE:
            return np.stack(found)
        return [row[:length] for row, length in zip(found, tokens.lengths, strict=True)]


def _logits(output: Any, head: Head) -> np.ndarray:
    import torch

    if head is Head.QUESTION:
        logits = torch.stack((output.start_logits, output.end_logits), dim=-1)
    else:
        logits = output.logits
    return np.asarray(logits.float().cpu().numpy())
