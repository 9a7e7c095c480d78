"""What training minimises, and its simplest case: the task's own loss.

transformers' models average over the examples of one forward pass and do not take gradient
accumulation into account. Summing the losses and dividing by the number of examples in the whole
step makes an accumulated step equal to one large batch, even if the last batch is short.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from sparsebert.tasks.table import Kind
from sparsebert.tasks.word_tokens import UNLABELLED
from sparsebert.torch_models import model_inputs


class Objective(Protocol):
    """A loss that runs the model itself, so that it can use more than the logits."""

    def loss(
        self, model: PreTrainedModel, batch: dict[str, torch.Tensor], examples_in_step: int
    ) -> torch.Tensor:
        """The loss of one batch: float32 scalar, the sum over its examples / ``examples_in_step``.

        ``batch`` holds ``input_ids``, ``token_type_ids`` and ``attention_mask`` (int64
        ``[batch, tokens]``), ``labels`` (see `TrainingExamples`) and the ``indices`` (int64
        ``[batch]``) of its examples in the training set. With bf16 precision, this is called under
        autocast, so the model's outputs may be bfloat16: convert them to float32 before reducing.
        """
        ...


class TaskLoss(Protocol):
    """A loss computed from a model's outputs."""

    def of(
        self, outputs: Any, batch: dict[str, torch.Tensor], examples_in_step: int
    ) -> torch.Tensor:
        """The sum over the examples / ``examples_in_step``, float32 scalar."""
        ...


class TaskObjective:
    """The task's own loss, as transformers' models compute it, for each kind of task."""

    def __init__(self, kind: Kind) -> None:
        self._sum = {
            Kind.CLASSIFICATION: _classification,
            Kind.LABEL_SETS: _label_sets,
            Kind.REGRESSION: _regression,
            Kind.TOKENS: _tokens,
            Kind.QUESTION: _question,
        }[kind]

    def loss(
        self, model: PreTrainedModel, batch: dict[str, torch.Tensor], examples_in_step: int
    ) -> torch.Tensor:
        """See `Objective`."""
        outputs = model(**model_inputs(model, batch))
        return self.of(outputs, batch, examples_in_step)

    def of(
        self, outputs: Any, batch: dict[str, torch.Tensor], examples_in_step: int
    ) -> torch.Tensor:
        """See `TaskLoss`."""
        return self._sum(outputs, batch["labels"]) / examples_in_step


def _classification(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of ``[batch, labels]`` against int64 ``[batch]``."""
    return functional.cross_entropy(outputs.logits.float(), labels, reduction="sum")


def _label_sets(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of ``[batch, labels]`` against zeros and ones, averaged over labels."""
    losses = functional.binary_cross_entropy_with_logits(
        outputs.logits.float(), labels, reduction="none"
    )
    return losses.mean(1).sum()


def _regression(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """Squared error of ``[batch, 1]`` against float ``[batch]``."""
    return functional.mse_loss(outputs.logits[:, 0].float(), labels, reduction="sum")


def _tokens(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of ``[batch, tokens, labels]`` against int64 ``[batch, tokens]``.

    An example's loss is the mean over its labelled tokens. transformers takes the mean over all
    labelled tokens of a batch, which is nearly the same for examples of similar length, as in our
    batches.
    """
    logits = outputs.logits.float().transpose(1, 2)
    losses = functional.cross_entropy(logits, labels, reduction="none", ignore_index=UNLABELLED)
    count = (labels != UNLABELLED).sum(1).clamp(min=1)
    return (losses.sum(1) / count).sum()


def _question(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of start and end ``[batch, tokens]`` against int64 ``[batch, 2]``."""
    start, end = outputs.start_logits.float(), outputs.end_logits.float()
    first = functional.cross_entropy(start, labels[:, 0], reduction="sum")
    last = functional.cross_entropy(end, labels[:, 1], reduction="sum")
    return (first + last) / 2
