"""What a sparse encoder learns from its dense original on unlabelled texts.

Each term is averaged over the examples of an optimiser step, so that the parts of an accumulated
step add up. Hidden states are measured relative to the teacher's variance and embeddings at unit
length, so that their weights mean the same for every model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from sparsebert.checkpoint.families import Head
from sparsebert.checkpoint.pooling import Pooling
from sparsebert.evaluation.torch_embedding import pool
from sparsebert.tasks.table import Kind
from sparsebert.torch_models import model_family, model_inputs, unwrapped
from sparsebert.training.distillation.losses import divergence, head_logits, logits_loss
from sparsebert.training.upstream.corpus import NOT_MASKED
from sparsebert.training.upstream.options import UpstreamOptions


class UpstreamObjective:
    """The distance of a student from its teacher, whose terms are weighted by `UpstreamOptions`.

    ``kind`` is that of the models' head; None for an encoder or a masked LM.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        options: UpstreamOptions,
        pooling: Pooling | None,
        kind: Kind | None = None,
    ) -> None:
        self._teacher = teacher.requires_grad_(False).eval()
        self._options = options
        self._pooling = pooling
        self._kind = kind if options.logits_weight else None

    def loss(
        self, model: PreTrainedModel, batch: dict[str, torch.Tensor], examples_in_step: int
    ) -> torch.Tensor:
        """The loss of one batch: a scalar, the sum over its examples / ``examples_in_step``.

        ``batch`` holds ``input_ids``, ``token_type_ids`` and ``attention_mask``, int64
        ``[batch, tokens]``, and for a masked-LM head ``labels`` of the same shape: the tokens that
        were masked, `NOT_MASKED` elsewhere.
        """
        options = self._options
        attention_mask = batch["attention_mask"].bool()
        teacher_model = self._teacher.to(attention_mask.device)
        with torch.no_grad():
            teacher_outputs = self._outputs(teacher_model, batch)
        student_outputs = self._outputs(model, batch)
        teacher_states = teacher_outputs.hidden_states
        student_states = student_outputs.hidden_states
        losses = torch.zeros(len(attention_mask), device=attention_mask.device)
        if options.hidden_weight:
            # The first hidden state is that of the embeddings, before any pruned layer.
            layers = zip(student_states[1:], teacher_states[1:], strict=True)
            distances = [hidden_distance(*layer, attention_mask) for layer in layers]
            losses = losses + options.hidden_weight * torch.stack(distances).mean(dim=0)
        if self._pooling is not None and options.embedding_weight:
            student = pooled(student_states[-1], attention_mask, self._pooling.modes)
            teacher = pooled(teacher_states[-1], attention_mask, self._pooling.modes)
            losses = losses + options.embedding_weight * embedding_distance(student, teacher)
        if self._kind is not None:
            mine, theirs = (
                head_logits(each, self._kind) for each in (student_outputs, teacher_outputs)
            )
            apart = logits_loss(self._kind, mine, theirs, attention_mask)
            if self._kind is Kind.LABEL_SETS:  # the sum over the labels instead of the mean
                apart = apart * mine.shape[1]
            losses = losses + options.logits_weight * apart
        if "labels" in batch:
            losses = losses + self._masked_lm(
                model, student_states[-1], teacher_states[-1], batch["labels"]
            )
        return losses.sum() / examples_in_step

    def _outputs(self, model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> Any:
        """A model's outputs, without its head if the logits are not used.

        ``hidden_states`` holds the embeddings and the output of each layer, ``[batch, tokens,
        features]`` each.
        """
        runs: Any = unwrapped(model).base_model if self._kind is None else model
        return runs(**model_inputs(model, batch), output_hidden_states=True)

    def _masked_lm(
        self,
        model: Any,
        student_states: torch.Tensor,
        teacher_states: torch.Tensor,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """Masked-LM loss and divergence from the teacher's predictions, ``[batch]``."""
        masked = labels != NOT_MASKED
        # Only masked tokens go through the decoder, which is the widest layer.
        student = predicted_tokens(model, student_states[masked]).float()
        with torch.no_grad():
            teacher = predicted_tokens(self._teacher, teacher_states[masked]).float()
        tokens = self._options.masked_lm_weight * functional.cross_entropy(
            student, labels[masked], reduction="none"
        )
        apart = divergence(student, teacher)
        tokens = tokens + self._options.token_logits_weight * apart
        counts = masked.sum(dim=1)
        sums = tokens.new_zeros(len(labels)).index_add(0, masked.nonzero()[:, 0], tokens)
        return sums / counts.clamp(min=1)


def predicted_tokens(model: PreTrainedModel, states: torch.Tensor) -> torch.Tensor:
    """A masked-LM head's logits ``[tokens, vocabulary]`` for ``states`` ``[tokens, hidden]``."""
    whole: Any = unwrapped(model)
    family = model_family(whole)
    head = family.heads[Head.MASKED_LM]
    assert head.dense is not None
    assert head.activation is not None
    assert head.norm is not None
    key = family.fields.get(head.activation, head.activation)
    activation = getattr(whole.config, key, head.activation)
    states = ACT2FN[activation](whole.get_submodule(head.dense)(states))
    states = whole.get_submodule(head.norm)(states)
    logits: torch.Tensor = whole.get_output_embeddings()(states)
    return logits


def hidden_distance(
    student: torch.Tensor, teacher: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    """Squared error of one layer relative to the teacher's variance, ``[batch]``.

    For a token it is Σ(s - t)² / Σ(t - mean t)² over the features; for an example, the mean over
    its tokens. It is 0 for equal states, and 1 for a student that outputs the mean of the teacher's
    features. ``student`` and ``teacher`` are ``[batch, tokens, features]``, ``attention_mask`` is
    bool ``[batch, tokens]``.
    """
    student, teacher = student.float(), teacher.float()
    error = (student - teacher).square().sum(dim=-1)
    spread = (teacher - teacher.mean(dim=-1, keepdim=True)).square().sum(dim=-1)
    relative = torch.where(attention_mask, error / spread.clamp(min=1e-12), 0.0)
    return relative.sum(dim=1) / attention_mask.sum(dim=1)


def pooled(
    states: torch.Tensor, attention_mask: torch.Tensor, modes: Sequence[str]
) -> torch.Tensor:
    """One unit vector for each example, ``[batch, features]``, pooled by ``modes`` (`Pooling`)."""
    return functional.normalize(pool(states.float(), attention_mask, modes), dim=-1)


def embedding_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Squared distance of unit vectors ``[batch, features]``, or 2 - 2 cosine: ``[batch]``."""
    return (student - teacher).square().sum(dim=-1)
