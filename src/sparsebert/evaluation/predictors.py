"""Two ways to compute a task's logits: our engine, and transformers on torch.

Both take token ids without padding and give float32 numpy arrays in the rows' order: for sequence
classification ``[rows, labels]``, for question answering a list of ``[tokens, 2]`` (start, end).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sparsebert.checkpoint.families import FAMILIES, Family, Head
from sparsebert.errors import CheckpointError
from sparsebert.extras import need_extra
from sparsebert.progress import Progress
from sparsebert.tasks.tokens import TokenRows

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from sparsebert.inference import Model

_ENGINE_CHUNK = 512  # rows handed to the engine at a time, between two reports of progress


class Predictor(Protocol):
    """Something that turns token ids into what the model's head gives."""

    name: str

    def predict(self, rows: TokenRows, head: Head, label: str, progress: Progress) -> Any:
        """Logits of all rows, as the module's docstring says; ``label`` is the work's name."""


class EnginePredictor:
    """Our own engine."""

    name = "sparsebert"

    def __init__(self, model: Model, batch_size: int) -> None:
        self._model = model
        self._batch_size = batch_size

    def predict(self, rows: TokenRows, head: Head, label: str, progress: Progress) -> Any:
        order = np.argsort(-rows.lengths, kind="stable")
        found: list[Any] = [None] * len(rows)
        for start in range(0, len(rows), _ENGINE_CHUNK):
            chunk = order[start : start + _ENGINE_CHUNK]
            ids, type_ids = zip(*(rows.row(index) for index in chunk), strict=True)
            kinds = type_ids if self._model.config.family.token_types else None
            logits = self._model.forward(ids, kinds, batch_size=self._batch_size)
            for index, row in zip(chunk, logits, strict=True):
                found[index] = row
            progress(label, start + len(chunk), len(rows))
        return np.stack(found) if head is Head.SEQUENCE else found


class TorchPredictor:
    """transformers' model on torch, in fp32, in batches of like length."""

    name = "torch"

    def __init__(self, model: PreTrainedModel, batch_size: int) -> None:
        self._model = model
        self._batch_size = batch_size

    @classmethod
    def load(cls, folder: Path, head: Head, batch_size: int) -> TorchPredictor:
        """The folder's model as any user of transformers would load it, in fp32."""
        return cls(load_torch_model(folder, head), batch_size)

    def predict(self, rows: TokenRows, head: Head, label: str, progress: Progress) -> Any:
        import torch

        model = self._model
        was_training = model.training
        model.eval()
        found: list[Any] = [None] * len(rows)
        order = np.argsort(-rows.lengths, kind="stable")
        try:
            with torch.inference_mode():
                for start in range(0, len(rows), self._batch_size):
                    chunk = order[start : start + self._batch_size]
                    batch = padded_batch(rows, chunk, model.device)
                    output = model(**model_inputs(model, batch))
                    for index, row in zip(chunk, _logits(output, head), strict=True):
                        found[index] = row[: rows.lengths[index]] if row.ndim == 2 else row
                    progress(label, start + len(chunk), len(rows))
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


def padded_batch(rows: TokenRows, chosen: Any, device: Any = "cpu") -> dict[str, torch.Tensor]:
    """Some rows padded to the longest: ``input_ids``, ``token_type_ids``, ``attention_mask``."""
    import torch

    longest = int(rows.lengths[chosen].max())
    ids = np.zeros((len(chosen), longest), np.int64)
    type_ids, mask = np.zeros_like(ids), np.zeros_like(ids)
    for place, index in enumerate(chosen):
        row_ids, row_types = rows.row(index)
        ids[place, : len(row_ids)] = row_ids
        type_ids[place, : len(row_ids)] = row_types
        mask[place, : len(row_ids)] = 1
    batch = {"input_ids": ids, "token_type_ids": type_ids, "attention_mask": mask}
    return {name: torch.from_numpy(values).to(device) for name, values in batch.items()}


def model_inputs(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a transformers model reads of a padded batch: types only where its family has any."""
    names = ["input_ids", "attention_mask"]
    names += ["token_type_ids"] if model_family(model).token_types else []
    return {name: batch[name] for name in names}


def model_family(model: Any) -> Family:
    """The family of a transformers model. Raises CheckpointError for a type that is not known."""
    model_type = unwrapped(model).config.model_type
    if model_type not in FAMILIES:
        raise CheckpointError(
            f"models of type {model_type!r} are not supported; supported are {', '.join(FAMILIES)}."
        )
    return FAMILIES[model_type]


def unwrapped(model: Any) -> Any:
    """The model itself, where torch wrapped it to train on several machines."""
    return getattr(model, "module", model)


def load_torch_model(folder: Path, head: Head) -> PreTrainedModel:
    """A folder's model with its head, through transformers' Auto classes, in fp32 on the CPU."""
    need_extra("running a model on torch", "torch", "transformers")
    import torch
    import transformers

    from sparsebert.evaluation.quiet import quiet_transformers

    kinds = {
        Head.SEQUENCE: transformers.AutoModelForSequenceClassification,
        Head.QUESTION: transformers.AutoModelForQuestionAnswering,
    }
    with quiet_transformers():
        model: PreTrainedModel = kinds[head].from_pretrained(str(folder), dtype=torch.float32)
    return model.eval()
