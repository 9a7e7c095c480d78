"""A student's fresh head begins as its teacher's: what reads the answer off the hidden states.

The student's hidden states approach the teacher's, so the teacher's head on top of them is nearly
right from the first step, where a random one has to be learnt from the task's few rows.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from sparsebert.checkpoint.architecture import canonical
from sparsebert.training.teacher import Teacher

_LABELLED = ("classifier.weight", "classifier.bias")  # a row for each label
_HEAD = ("pooler.dense.weight", "pooler.dense.bias", "qa_outputs.weight", "qa_outputs.bias")


@torch.no_grad()
def copy_head(teacher: Teacher, student: PreTrainedModel) -> None:
    """Give ``student`` the teacher's pooler and head, its labels in the student's order.

    Nothing happens where the teacher is of another width.
    """
    checkpoint = teacher.checkpoint
    if checkpoint.config.hidden_size != student.config.hidden_size:
        return
    for name, parameter in student.named_parameters():
        known = canonical(name)
        if known in (*_LABELLED, *_HEAD) and known in checkpoint.stored_name:
            weight = checkpoint.finite_weight(known)
            if known in _LABELLED and teacher.columns is not None:
                weight = weight[teacher.columns]
            parameter.copy_(torch.tensor(weight))
