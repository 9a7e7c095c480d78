"""How tokens relate to one another in the last layer: MiniLMv2 (Wang et al. 2021).

The scaled dot products of all queries with each other, of all keys and of all values, each a
softmax over a row's tokens, are what the student copies. They are chosen over attention
probabilities because they need no slow attention (the probabilities exist only if attention is
computed step by step), cost one layer and not all, and compare models of any width, depth and
number of heads: queries of width H are cut into as many relation heads for both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from sparsebert.evaluation.predictors import model_family, unwrapped
from sparsebert.training.distillation_losses import divergence, without_padding
from sparsebert.training.parameters import encoder_linear


@contextmanager
def last_projections(model: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Gather query, key and value of the last layer from the forward pass inside.

    The list holds them afterwards, ``[rows, tokens, hidden]`` each, in this order; as the linear
    layers give them, before rotary positions turn them.
    """
    attention = f"encoder.layer.{unwrapped(model).config.num_hidden_layers - 1}.attention.self"
    fused = model_family(model).fused_attention
    found: list[torch.Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        found.extend(output.chunk(3, dim=-1) if fused else (output,))

    names = ("query_key_value",) if fused else ("query", "key", "value")
    layers = [encoder_linear(model, f"{attention}.{name}") for name in names]
    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def relations_loss(
    student: Sequence[torch.Tensor],
    teacher: Sequence[torch.Tensor],
    heads: int,
    real: torch.Tensor,
) -> torch.Tensor:
    """float32 ``[rows]``: how far the student's relations are from the teacher's.

    ``student`` and ``teacher`` are queries, keys and values, ``[rows, tokens, width]`` each, where
    ``heads`` relation heads divide both widths; ``real`` is bool ``[rows, tokens]``, False at
    padding. With R = softmax(A A^T / sqrt(width / heads)) of one relation head, over the n real
    tokens of a row,

        sum over A = queries, keys, values of  1 / (heads n)  sum_heads sum_tokens KL(R^T || R^S)

    (equations 3 to 6 of the paper, all three weights 1).
    """
    tokens = real.sum(1)
    total = torch.zeros(len(real), device=real.device)
    for mine, theirs in zip(student, teacher, strict=True):
        apart = divergence(_relations(mine, heads, real), _relations(theirs, heads, real))
        total = total + apart.mean(1).masked_fill(~real, 0.0).sum(1) / tokens
    return total


def relation_heads(student_heads: int, teacher_hidden: int) -> int:
    """Into how many relation heads to cut: the student's own heads, or what divides both widths."""
    return math.gcd(student_heads, teacher_hidden)


def _relations(vectors: torch.Tensor, heads: int, real: torch.Tensor) -> torch.Tensor:
    """Logits of R, float32 ``[rows, heads, tokens, tokens]``; padding never is a partner."""
    split = vectors.view(*vectors.shape[:2], heads, -1).transpose(1, 2)
    scores = split @ split.transpose(2, 3) / math.sqrt(split.shape[-1])
    return without_padding(scores, real[:, None, None, :])
