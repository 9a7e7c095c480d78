"""How far a student's logits are from its teacher's, for each kind of head.

Each function takes the outputs of both transformers models and the attention mask (bool
``[batch, tokens]``), and returns float32 ``[batch]``: 0 for equal logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sparsebert.training.distillation.losses import divergence, span_logits_loss, value_loss

HeadDistance = Callable[[Any, Any, torch.Tensor], torch.Tensor]


def class_distance(student: Any, teacher: Any, attention_mask: torch.Tensor) -> torch.Tensor:
    """KL divergence over the classes; logits are ``[batch, labels]``."""
    return divergence(student.logits, teacher.logits)


def labels_distance(student: Any, teacher: Any, attention_mask: torch.Tensor) -> torch.Tensor:
    """The sum over the labels of KL(sigmoid(teacher) || sigmoid(student)), of yes and no.

    Its gradient is that of the binary cross-entropy with sigmoid(teacher) as the target. Logits are
    ``[batch, labels]``.
    """
    yes_no = [
        torch.stack((each, torch.zeros_like(each)), -1)
        for each in (student.logits.float(), teacher.logits.float())
    ]
    return divergence(*yes_no).sum(-1)


def value_distance(student: Any, teacher: Any, attention_mask: torch.Tensor) -> torch.Tensor:
    """Squared error of a single value; logits are ``[batch, 1]``."""
    return value_loss(student.logits, teacher.logits.float())


def token_distance(student: Any, teacher: Any, attention_mask: torch.Tensor) -> torch.Tensor:
    """KL divergence over the labels of each token, averaged over an example's tokens.

    Logits are ``[batch, tokens, labels]``.
    """
    tokens = divergence(student.logits, teacher.logits).masked_fill(~attention_mask, 0.0)
    return tokens.sum(1) / attention_mask.sum(1)


def span_distance(student: Any, teacher: Any, attention_mask: torch.Tensor) -> torch.Tensor:
    """KL divergence over the tokens, averaged over start and end, ``[batch, tokens]`` each."""
    logits = torch.stack((teacher.start_logits, teacher.end_logits), -1).float()
    return span_logits_loss(student.start_logits, student.end_logits, logits, attention_mask, 1.0)
