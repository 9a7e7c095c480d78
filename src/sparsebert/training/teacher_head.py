"""A student's fresh head begins as its teacher's: what reads the answer off the hidden states.

The student's hidden states approach the teacher's, so the teacher's head on top of them is nearly
right from the first step, where a random one has to be learnt from the task's few rows.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from sparsebert.checkpoint.families import HeadShape
from sparsebert.training.parameters import canonical_parameters
from sparsebert.training.teacher import Teacher


@torch.no_grad()
def copy_head(teacher: Teacher, student: PreTrainedModel, shape: HeadShape | None) -> None:
    """Give ``student`` the teacher's head, its labels in the student's order.

    ``shape`` is the student's head; nothing happens where the teacher's is of another make or
    width.
    """
    checkpoint = teacher.checkpoint
    same_width = checkpoint.config.hidden_size == student.config.hidden_size
    if shape is None or shape != checkpoint.config.head_shape or not same_width:
        return
    labelled = (f"{shape.last}.weight", shape.last_bias)  # a row for each label
    layers = [layer for layer in (shape.dense, shape.norm) if layer]
    names = [f"{layer}.{end}" for layer in layers for end in ("weight", "bias")]
    parameters = canonical_parameters(student)
    for name in (*names, *labelled):
        if name in parameters and name in checkpoint.stored_name:
            weight = checkpoint.finite_weight(name)
            if name in labelled and teacher.columns is not None:
                weight = weight[teacher.columns]
            parameters[name].copy_(torch.tensor(weight))
