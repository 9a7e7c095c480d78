"""How far a student is from its teacher: logits, hidden states, attention relations.

Each loss is float32 ``[batch]``, and an example's loss depends only on the example, so the sum does
not depend on how examples are batched and padded. The student's tensors may have any floating-point
type; the arithmetic is float32.

Attention relations describe how tokens relate to one another in the last layer (MiniLMv2, Wang et
al. 2021): the scaled dot products of all queries with each other, of all keys, and of all values,
each with a softmax over an example's tokens. The student learns these rather than attention
probabilities because they do not need slow attention (fused attention does not produce
probabilities), cost one layer instead of all, and can compare models of any width, depth and number
of heads: both models' vectors are split into the same number of relation heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from sparsebert.tasks.table import Kind
from sparsebert.torch_models import encoder_linear, model_family, unwrapped


def head_logits(outputs: Any, kind: Kind) -> torch.Tensor:
    """The logits in a transformers model's outputs: ``[batch, labels]``.

    For kinds with an answer for each token they are ``[batch, tokens, labels]``; the labels of a
    question are start and end.
    """
    if kind is Kind.QUESTION:
        return torch.stack((outputs.start_logits, outputs.end_logits), dim=-1)
    logits: torch.Tensor = outputs.logits
    return logits


def logits_loss(
    kind: Kind,
    student: torch.Tensor,
    teacher: torch.Tensor,
    attention_mask: torch.Tensor,
    temperature: float = 1.0,
) -> torch.Tensor:
    """KL(teacher || student) of the softened probabilities, times the temperature squared.

    Both are logits as `head_logits` gives them; ``attention_mask`` is bool ``[batch, tokens]``,
    False at padding. With p = softmax(teacher / T), q = softmax(student / T):
    T^2 sum_i p_i (log p_i - log q_i), whose gradient keeps its size as T changes (Hinton et al.
    2015, section 2).

    For several labels per example it is the mean over them, of yes and no each; for tokens, the
    mean over those that are not padding; for questions, the mean of start and end, with a softmax
    over the tokens. For a number it is the squared error, and there is no temperature.
    """
    if kind is Kind.REGRESSION:
        return (student.float() - teacher.float()).square().sum(-1)
    student, teacher = student.float() / temperature, teacher.float() / temperature
    if kind is Kind.LABEL_SETS:  # the logits are those of yes; the logit of no is 0
        student, teacher = (
            torch.stack((each, torch.zeros_like(each)), -1) for each in (student, teacher)
        )
    if kind is Kind.QUESTION:
        student, teacher = (
            without_padding(each.transpose(1, 2), attention_mask[:, None])
            for each in (student, teacher)
        )
    apart = temperature**2 * divergence(student, teacher)
    if kind is Kind.TOKENS:
        return apart.masked_fill(~attention_mask, 0.0).sum(1) / attention_mask.sum(1)
    return apart if kind is Kind.CLASSIFICATION else apart.mean(-1)


def hidden_states_loss(
    student: Sequence[torch.Tensor],
    teacher: Sequence[torch.Tensor],
    variance: Sequence[float] | npt.NDArray[np.float64],
    attention_mask: torch.Tensor,
) -> torch.Tensor:
    """The share of the variance of the teacher's hidden states that the student does not explain.

    ``student`` and ``teacher`` are the outputs of all encoder layers (not of the embeddings, which
    are not pruned), ``[batch, tokens, hidden]`` each; ``variance`` has one number for each of the
    teacher's layers (`TeacherOutputs.hidden_variance`). For an example of n tokens and H features,
    the loss of a pair of layers is

        sum_tokens ||student - teacher||^2 / (n H variance)

    and the example's loss is the mean over the pairs (see `layer_pairs`). For a student that always
    outputs the teacher's mean it is 1 on average, so a weight means the same for every model.
    """
    tokens = attention_mask.sum(1)
    shares = []
    for student_layer, teacher_layer in layer_pairs(len(student), len(teacher)):
        error = (student[student_layer].float() - teacher[teacher_layer].float()).square().mean(-1)
        shares.append(
            error.masked_fill(~attention_mask, 0.0).sum(1)
            / (tokens * float(variance[teacher_layer]))
        )
    return torch.stack(shares).mean(0)


def layer_pairs(student_layers: int, teacher_layers: int) -> list[tuple[int, int]]:
    """Which of the teacher's layers each of the student's follows, counted from 0.

    The mapping is uniform, as in TinyBERT (Jiao et al. 2020): layer i of S follows layer
    ceil(i T / S) of T, counted from 1, so the last layer follows the last.
    """
    return [
        (layer, -(-(layer + 1) * teacher_layers // student_layers) - 1)
        for layer in range(student_layers)
    ]


def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL(softmax(teacher) || softmax(student)) over the last dimension, in float32."""
    return functional.kl_div(
        functional.log_softmax(student.float(), dim=-1),
        functional.log_softmax(teacher.float(), dim=-1),
        reduction="none",
        log_target=True,
    ).sum(-1)


def without_padding(logits: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Float32 logits whose softmax is 0 where ``attention_mask`` (which broadcasts) is False.

    It uses the lowest finite number, because with -inf the divergence would be NaN
    (0 * (-inf - -inf)).
    """
    return logits.float().masked_fill(~attention_mask, torch.finfo(torch.float32).min)


@contextmanager
def last_projections(model: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect the last layer's queries, keys and values from a forward pass inside the block.

    The list then holds them in this order, ``[batch, tokens, hidden]`` each, as output by the
    linear layers, before rotary positions are applied.
    """
    config = unwrapped(model).config
    shared = model_family(model).shared_layers
    stored = config.num_hidden_groups if shared else config.num_hidden_layers
    attention = f"encoder.layer.{stored - 1}.attention.self"
    fused = model_family(model).fused_attention
    found: list[torch.Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        if len(found) == 3:
            if not shared:  # DeBERTa's relative positions, projected after the tokens
                return
            found.clear()  # from an earlier layer, which shares the weights
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
    attention_mask: torch.Tensor,
) -> torch.Tensor:
    """float32 ``[batch]``: how far the student's relations are from the teacher's.

    ``student`` and ``teacher`` are queries, keys and values, ``[batch, tokens, width]`` each;
    ``heads`` must divide both widths; ``attention_mask`` is bool ``[batch, tokens]``, False at
    padding. With R = softmax(A A^T / sqrt(width / heads)) for one relation head, over the n tokens
    of an example, the loss is

        sum over A = queries, keys, values of  1 / (heads n)  sum_heads sum_tokens KL(R^T || R^S)

    (equations 3 to 6 of the paper, all three weights 1).
    """
    tokens = attention_mask.sum(1)
    total = torch.zeros(len(attention_mask), device=attention_mask.device)
    for student_vectors, teacher_vectors in zip(student, teacher, strict=True):
        apart = divergence(
            _relations(student_vectors, heads, attention_mask),
            _relations(teacher_vectors, heads, attention_mask),
        )
        total = total + apart.mean(1).masked_fill(~attention_mask, 0.0).sum(1) / tokens
    return total


def relation_heads(student_heads: int, teacher_hidden: int) -> int:
    """The number of relation heads: the student's own heads, or fewer to divide both widths."""
    return math.gcd(student_heads, teacher_hidden)


def _relations(vectors: torch.Tensor, heads: int, attention_mask: torch.Tensor) -> torch.Tensor:
    """Logits of R, float32 ``[batch, heads, tokens, tokens]``, where padding is masked out."""
    split = vectors.view(*vectors.shape[:2], heads, -1).transpose(1, 2)
    scores = split @ split.transpose(2, 3) / math.sqrt(split.shape[-1])
    return without_padding(scores, attention_mask[:, None, None, :])
