"""A loss that runs parts of a model, inside of the wrapper that keeps processes together.

torch's DistributedDataParallel learns from what its forward pass returns which gradients to wait
for, and so must see all of a loss: also of one that asks for hidden states, or sends some tokens
alone through a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from sparsebert.training.objective import Objective


def parallel_loss(
    model: PreTrainedModel | DistributedDataParallel,
    objective: Objective,
    batch: dict[str, torch.Tensor],
    rows_in_step: int,
) -> torch.Tensor:
    """The objective's loss, of a model that is wrapped or not."""
    if not isinstance(model, DistributedDataParallel):
        return objective.loss(model, batch, rows_in_step)
    inner: Any = model.module
    instead = vars(inner).get("forward")

    def restore() -> None:
        if instead is None:
            vars(inner).pop("forward", None)
        else:
            inner.forward = instead

    def forward(_: torch.Tensor) -> torch.Tensor:
        restore()  # what the objective asks of the model is the model's own
        return objective.loss(inner, batch, rows_in_step)

    inner.forward = forward
    try:
        loss: torch.Tensor = model(batch["attention_mask"])
    finally:
        restore()
    return loss
