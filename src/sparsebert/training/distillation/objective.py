"""The loss of a student that learns from a teacher instead of, or in addition to, the labels.

    loss = task_weight * task + logits_weight * logits + hidden_weight * hidden
         + attention_weight * attention

Each part is the sum over its examples divided by the number of examples in the whole optimiser
step, as in the task's own loss, so that an accumulated step equals one large batch. The weights 0,
1, 0, 0 mean pure distillation of the logits, as in published recipes for sparse BERTs (*Prune Once
for All*, Zafrir et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from transformers import PreTrainedModel

from sparsebert.tasks.table import Kind
from sparsebert.torch_models import model_inputs, unwrapped
from sparsebert.training.distillation.losses import (
    head_logits,
    hidden_states_loss,
    last_projections,
    logits_loss,
    relation_heads,
    relations_loss,
)
from sparsebert.training.distillation.teacher import Teacher
from sparsebert.training.objective import TaskLoss, TaskObjective
from sparsebert.training.options import FinetuneOptions

Noise = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
"""Maps a batch to the one that teacher and student read instead."""


class DistillationObjective:
    """The loss above, for one kind of task, with the weights and temperature of ``options``.

    The ``teacher`` has outputs (`with_outputs`): its logits for every training example. The model
    itself computes hidden states and attention relations on the student's batches, and with
    ``noise`` its logits for these too; it is neither loaded nor kept if none of this is needed.
    ``task`` is the task's own loss, if it is not `TaskObjective`.
    """

    def __init__(
        self,
        kind: Kind,
        teacher: Teacher,
        options: FinetuneOptions,
        task: TaskLoss | None = None,
        noise: Noise | None = None,
    ) -> None:
        assert teacher.outputs is not None
        self._kind = kind
        self._outputs = teacher.outputs
        self._columns = teacher.columns
        self._noise = noise
        self._options = options
        self._task = task or TaskObjective(kind)
        self._teacher: PreTrainedModel | None = None
        if noise is not None:
            self._teacher = teacher.model()
        elif options.hidden_weight > 0 or options.attention_weight > 0:
            # Without its head, because its logits are already in outputs.
            self._teacher = teacher.model().base_model.eval()

    def loss(
        self, model: PreTrainedModel, batch: dict[str, torch.Tensor], examples_in_step: int
    ) -> torch.Tensor:
        """See `Objective`."""
        options = self._options
        if self._noise is not None:
            batch = self._noise(batch)
        attention_mask = batch["attention_mask"].bool()
        outputs, student_states, student_projections = self._run(model, batch)
        answers = None
        if self._teacher is not None:
            teacher = self._teacher.to(attention_mask.device)
            with torch.no_grad():
                answers, teacher_states, teacher_projections = self._run(teacher, batch)
        loss = torch.zeros((), device=attention_mask.device)
        if options.task_weight:
            task = self._task.of(outputs, batch, examples_in_step)
            loss = loss + options.task_weight * task
        if options.logits_weight:
            apart = self._answers_loss(outputs, batch, None if self._noise is None else answers)
            loss = loss + options.logits_weight * _summed(apart, batch) / examples_in_step
        if options.hidden_weight:
            apart = hidden_states_loss(
                student_states, teacher_states, self._outputs.hidden_variance, attention_mask
            )
            loss = loss + options.hidden_weight * _summed(apart, batch) / examples_in_step
        if options.attention_weight:
            heads = relation_heads(
                unwrapped(model).config.num_attention_heads, teacher.config.hidden_size
            )
            apart = relations_loss(student_projections, teacher_projections, heads, attention_mask)
            loss = loss + options.attention_weight * _summed(apart, batch) / examples_in_step
        return loss

    def _run(
        self, model: PreTrainedModel, batch: dict[str, torch.Tensor]
    ) -> tuple[Any, tuple[torch.Tensor, ...], list[torch.Tensor]]:
        """A model's outputs, its layers' hidden states and its last queries, keys and values."""
        with ExitStack() as stack:
            wanted = self._options.attention_weight > 0
            projections = stack.enter_context(last_projections(model)) if wanted else []
            outputs = model(
                **model_inputs(model, batch), output_hidden_states=self._options.hidden_weight > 0
            )
        return outputs, (outputs.hidden_states or ())[1:], projections

    def _answers_loss(
        self, outputs: Any, batch: dict[str, torch.Tensor], answers: Any | None
    ) -> torch.Tensor:
        """The part of the loss that depends on the logits only, float32 ``[batch]``.

        ``answers`` are the teacher's own outputs on the batch, None to take its kept ones.
        """
        attention_mask = batch["attention_mask"].bool()
        if answers is None:
            teacher = self._outputs.batch(batch["indices"], attention_mask.shape[1])
            teacher = teacher.to(attention_mask.device)
        else:
            teacher = head_logits(answers, self._kind)
            if self._columns is not None:
                teacher = teacher[..., torch.from_numpy(self._columns).to(teacher.device)]
        student = head_logits(outputs, self._kind)
        return logits_loss(self._kind, student, teacher, attention_mask, self._options.temperature)


def _summed(apart: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The sum over a batch's examples, for losses of sequences, which may outnumber examples.

    It is the mean over the sequences times the number of examples.
    """
    return apart.sum() * (len(batch["indices"]) / len(apart))
