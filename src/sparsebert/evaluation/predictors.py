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
from sparsebert.torch_models import load_torch_model, model_inputs, padded_batch

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
    def load(cls, folder: Path, head: Head, batch_size: int) -> TorchPredictor:
        """The folder's model in fp32, as any user of transformers would load it."""
        return cls(load_torch_model(folder, head), batch_size)

    def predict(self, tokens: TokenRows, head: Head, label: str, progress: Progress) -> Any:
        import torch

        model = self._model
        was_training = model.training
        model.eval()
        found: list[Any] = [None] * len(tokens)
        order = np.argsort(-tokens.lengths, kind="stable")
        try:
            with torch.inference_mode():
                for start in range(0, len(tokens), self._batch_size):
                    chunk = order[start : start + self._batch_size]
                    batch = padded_batch(tokens, chunk, model.device)
                    output = model(**model_inputs(model, batch))
                    for index, row in zip(chunk, _logits(output, head), strict=True):
                        found[index] = row[: tokens.lengths[index]] if row.ndim == 2 else row
                    progress(label, start + len(chunk), len(tokens))
        finally:
            model.train(was_training)
        return np.stack(found) if head is Head.SEQUENCE else found


def _logits(output: Any, head: Head) -> np.ndarray:
    import torch

    if head is Head.QUESTION:
        logits = torch.stack((output.start_logits, output.end_logits), dim=-1)
    else:
        logits = output.logits
    return np.asarray(logits.float().cpu().numpy())
