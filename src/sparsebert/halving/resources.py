"""The disk space and memory that a halving takes, checked before its first step."""

from __future__ import annotations

from pathlib import Path

from sparsebert.checkpoint.staging import check_disk, size_text
from sparsebert.diagnosis.memory import Plan as TrainingPlan
from sparsebert.diagnosis.memory import training_bytes
from sparsebert.diagnosis.system import available_memory
from sparsebert.errors import InputError
from sparsebert.halving.effort import BATCH, Plan
from sparsebert.halving.steps import LENGTH, task_name
from sparsebert.halving.subject import Goal, Subject
from sparsebert.tasks.own import unread_task

_FLOAT = 4  # bytes
_PACKED = 0.3  # of the dense size: int8, without half of the encoder's weights
_LIBRARIES = 600 << 20
_CALIBRATION_TOKENS = 60_000  # in 1,024 texts
_COPIES = 10  # of these tokens' hidden states, in the dense model and in the pruned one
_MATRICES = 8  # as large as the Hessian of the widest layer
_KEPT = 1.2  # times what training takes: torch's allocator keeps memory


def disk_needed(subject: Subject, plan: Plan) -> int:
    """Bytes of the work folder and the result at their largest.

    A folder each for the pruned model, for each round's student and packed model, and for the dense
    model if it is fine-tuned first; and the checkpoints of one training.
    """
    from sparsebert.training.upstream.options import UpstreamOptions
    from sparsebert.training.work_folder import disk_needed as training_disk

    weights = subject.checkpoint.tensors.nbytes
    folders = 1 + _PACKED + plan.rounds * (1 + _PACKED) + (0 if subject.taught else 1)
    trained = 0
    if not subject.taught:
        trained = training_disk(subject.checkpoint, UpstreamOptions(epochs=3))
    elif plan.rounds:
        # Task models train the word embeddings that occur, others train none.
        trained = training_disk(
            subject.checkpoint, UpstreamOptions(epochs=plan.epochs, embeddings="frozen")
        )
    return round(weights * (folders + _PACKED)) + trained


def memory_needed(subject: Subject, plan: Plan) -> int:
    """Bytes that the largest step takes: distilling, or pruning by second order.

    Distilling takes what training does (`sparsebert.diagnosis.memory`), and the teacher.
    Second-order pruning takes the hidden states of all calibration texts, before and after one
    encoder layer, in the dense and in the pruned model, and some matrices of the widest layer. For
    MiniLM, these estimates are 2.4 and 1.7 GB; 2.3 and 1.7 GB were measured.
    """
    checkpoint = subject.checkpoint
    config = checkpoint.config
    weights = checkpoint.tensors.nbytes
    states = _COPIES * config.hidden_size * _CALIBRATION_TOKENS
    pruning = _LIBRARIES + weights
    pruning += _FLOAT * (states + _MATRICES * config.intermediate_size**2)
    if plan.rounds == 0 and subject.taught:
        return pruning
    length = LENGTH
    if subject.goal is Goal.TASK:
        length = unread_task(task_name(subject)).max_length
    tokens = min(length, config.max_length)
    fixed, row = training_bytes(
        checkpoint, TrainingPlan(BATCH, tokens, dropout=False, embeddings="frozen")
    )
    return max(pruning, round(_KEPT * (fixed + BATCH * row + 2 * weights)))


def check_resources(subject: Subject, plan: Plan, work: Path) -> None:
    """OutputError or InputError if there is too little disk space or memory by these estimates."""
    check_disk(work, disk_needed(subject, plan), f"halving {subject.title}")
    memory = available_memory()
    needed = memory_needed(subject, plan)
    if memory is not None and memory.free < needed:
        raise InputError(
            f"halving {subject.title} takes about {size_text(needed)} of memory, but only "
            f"{size_text(memory.free)} is free: close other programs, or use a machine with more."
        )
