"""The loss of a student that learns from a teacher instead of, or in addition to, the labels.

    loss = task_weight * task + logits_weight * logits + hidden_weight * hidden
         + attention_weight * attention

Each part is the sum over its examples divided by the number of examples in the whole optimiser
step, as in the task's own loss, so that an accumulated step equals one large batch. The weights 0,
1, 0, 0 mean pure distillation of the logits, as in published recipes for sparse BERTs (*Prune Once
for All*, Zafrir et al. 2021).
"""

from __future__ import annotations

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
from sparsebert.training.distillation.outputs import TeacherOutputs
from sparsebert.training.distillation.teacher import Teacher
from sparsebert.training.objective import TaskLoss, TaskObjective
from sparsebert.training.options import FinetuneOptions


class DistillationObjective:
    """The loss above, for one kind of task.

    ``outputs`` holds the teacher's logits for every training example, in the order of the student's
    labels. ``teacher`` is the model itself, which computes hidden states and attention relations on
    the student's batches; it is neither needed nor kept if both have weight 0.
    """

    def __init__(
        self,
        kind: Kind,
        outputs: TeacherOutputs,
        *,
        temperature: float = 2.0,
        task_weight: float = 0.0,
        logits_weight: float = 1.0,
        hidden_weight: float = 0.0,
        attention_weight: float = 0.0,
        teacher: PreTrainedModel | None = None,
        task: TaskLoss | None = None,
    ) -> None:
        live = hidden_weight > 0 or attention_weight > 0
        if live and teacher is None:
            raise ValueError("hidden states and attention need the teacher itself")
        self._kind = kind
        self._task = task or TaskObjective(kind)
        self._outputs = outputs
        self._temperature = temperature
        self._task_weight = task_weight
        self._logits_weight = logits_weight
        self._hidden_weight = hidden_weight
        self._attention_weight = attention_weight
        # Without its head, because its logits are already in outputs.
        self._teacher = teacher.base_model.eval() if live and teacher is not None else None

    def loss(
        self, model: PreTrainedModel, batch: dict[str, torch.Tensor], examples_in_step: int
    ) -> torch.Tensor:
        """See `Objective`."""
        attention_mask = batch["attention_mask"].bool()
        outputs, student_states, student_projections = self._run(model, batch)
        loss = torch.zeros((), device=attention_mask.device)
        if self._task_weight:
            task = self._task.of(outputs, batch, examples_in_step)
            loss = loss + self._task_weight * task
        if self._logits_weight:
            apart = self._answers_loss(outputs, batch)
            loss = loss + self._logits_weight * _summed(apart, batch) / examples_in_step
        if self._teacher is None:
            return loss
        teacher = self._teacher.to(attention_mask.device)
        with torch.no_grad():
            _, teacher_states, teacher_projections = self._run(teacher, batch)
        if self._hidden_weight:
            apart = hidden_states_loss(
                student_states, teacher_states, self._outputs.hidden_variance, attention_mask
            )
            loss = loss + self._hidden_weight * _summed(apart, batch) / examples_in_step
        if self._attention_weight:
            heads = relation_heads(
                unwrapped(model).config.num_attention_heads, teacher.config.hidden_size
            )
            apart = relations_loss(student_projections, teacher_projections, heads, attention_mask)
            loss = loss + self._attention_weight * _summed(apart, batch) / examples_in_step
        return loss

    def _run(
        self, model: PreTrainedModel, batch: dict[str, torch.Tensor]
    ) -> tuple[Any, tuple[torch.Tensor, ...], list[torch.Tensor]]:
        """A model's outputs, its layers' hidden states and its last queries, keys and values."""
        with ExitStack() as stack:
            wanted = self._attention_weight > 0
            projections = stack.enter_context(last_projections(model)) if wanted else []
            outputs = model(
                **model_inputs(model, batch), output_hidden_states=self._hidden_weight > 0
            )
        return outputs, (outputs.hidden_states or ())[1:], projections

    def _answers_loss(self, outputs: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The part of the loss that depends on the logits only, float32 ``[batch]``."""
        attention_mask = batch["attention_mask"].bool()
        teacher = self._outputs.batch(batch["indices"], attention_mask.shape[1])
        teacher = teacher.to(attention_mask.device)
        student = head_logits(outputs, self._kind)
        return logits_loss(self._kind, student, teacher, attention_mask, self._temperature)


def _summed(apart: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The sum over a batch's examples, for losses of sequences, which may outnumber examples.

    It is the mean over the sequences times the number of examples.
    """
    return apart.sum() * (len(batch["indices"]) / len(apart))


def distillation_arguments(teacher: Teacher, options: FinetuneOptions) -> dict[str, Any]:
    """The arguments of `DistillationObjective` for a teacher with outputs (`with_outputs`)."""
    assert teacher.outputs is not None
    live = options.hidden_weight > 0 or options.attention_weight > 0
    return {
        "outputs": teacher.outputs,
        "temperature": options.temperature,
        "task_weight": options.task_weight,
        "logits_weight": options.logits_weight,
        "hidden_weight": options.hidden_weight,
        "attention_weight": options.attention_weight,
        "teacher": teacher.model() if live else None,
    }
