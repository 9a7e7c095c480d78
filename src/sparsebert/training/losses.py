"""The loss of each kind of task, as transformers' models compute it, over a whole optimiser step.

transformers' BERT models average over the rows of one forward pass and know nothing of gradient
accumulation; summing here and dividing by the rows of the whole step makes an accumulated step
equal to one large batch, also where the last batch is short.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from sparsebert.tasks.table import Kind

Loss = Callable[..., torch.Tensor]


def task_loss(kind: Kind) -> Loss:
    """A ``compute_loss_func`` for transformers' Trainer: (outputs, labels, num_items_in_batch)."""
    sums = {
        Kind.CLASSIFICATION: _classification,
        Kind.REGRESSION: _regression,
        Kind.QUESTION: _question,
    }
    total = sums[kind]

    def loss(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        rows = len(labels) if num_items_in_batch is None else num_items_in_batch
        return total(outputs, labels) / rows

    return loss


def _classification(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of ``[rows, labels]`` against int64 ``[rows]``."""
    return functional.cross_entropy(outputs.logits, labels, reduction="sum")


def _regression(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """Squared error of ``[rows, 1]`` against float ``[rows]``."""
    return functional.mse_loss(outputs.logits[:, 0], labels, reduction="sum")


def _question(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of start and end ``[rows, tokens]`` against int64 ``[rows, 2]``."""
    start = functional.cross_entropy(outputs.start_logits, labels[:, 0], reduction="sum")
    end = functional.cross_entropy(outputs.end_logits, labels[:, 1], reduction="sum")
    return (start + end) / 2
