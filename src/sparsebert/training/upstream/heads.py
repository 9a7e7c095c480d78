"""How far a student's head is from its teacher's, for each kind of head.

Every function takes what transformers' model gives for student and teacher, and the attention mask,
bool ``[batch, tokens]``, and gives float32 ``[batch]``: 0 for equal logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sparsebert.training.distillation.losses import divergence, span_logits_loss, value_loss

HeadDistance = Callable[[Any, Any, torch.Tensor], torch.Tensor]


def class_distance(student: Any, teacher: Any, attention_mask: torch.Tensor) -> torch.Tensor:
    """KL divergence of the classes; logits are ``[batch, labels]``."""
    return divergence(student.logits, teacher.logits)


def labels_distance(student: Any, teacher: Any, attention_mask: torch.Tensor) -> torch.Tensor:
    """The sum over the labels of KL(sigmoid(teacher) || sigmoid(student)), each yes or no.

    Its gradient is that of binary cross-entropy against sigmoid(teacher); logits are
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
    """KL divergence of each token's labels, the mean over an example's tokens.

    Logits are ``[batch, tokens, labels]``.
    """
    tokens = divergence(student.logits, teacher.logits).masked_fill(~attention_mask, 0.0)
    return tokens.sum(1) / attention_mask.sum(1)


def span_distance(student: Any, teacher: Any, attention_mask: torch.Tensor) -> torch.Tensor:
    """KL divergence over the tokens, the mean of start and end, ``[batch, tokens]`` each."""
    logits = torch.stack((teacher.start_logits, teacher.end_logits), -1).float()
    return span_logits_loss(student.start_logits, student.end_logits, logits, attention_mask, 1.0)
