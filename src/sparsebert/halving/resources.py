"""Disk and memory that a halving takes, checked before its first step."""

from __future__ import annotations

import shutil
from pathlib import Path

from sparsebert.checkpoint import Checkpoint
from sparsebert.diagnosis.memory import Plan as TrainingPlan
from sparsebert.diagnosis.memory import training_bytes
from sparsebert.diagnosis.system import available_memory
from sparsebert.errors import InputError, OutputError
from sparsebert.halving.effort import BATCH, Plan
from sparsebert.halving.steps import LENGTH
from sparsebert.halving.subject import Subject

_FLOAT = 4  # bytes
_CHECKPOINTS = 3  # two are kept, and the next is written before the older one goes
_PACKED = 0.3  # of the dense weights: int8, one of two, and what is not pruned in int8
_CALIBRATION_TOKENS = 60_000  # of 1,024 texts, at most
_LIBRARIES = 600 << 20


def disk_needed(subject: Subject, plan: Plan) -> int:
    """Bytes of the work folder and the result when they take most.

    A folder each for the pruned model, for each round's student and packed model and, where it is
    fine-tuned first, for the dense one; and the checkpoints of one training, weights and AdamW's
    two states.
    """
    weights = _weights(subject.checkpoint)
    folders = 1 + _PACKED + plan.rounds * (1 + _PACKED) + (0 if subject.taught else 1)
    trained = 3 * _CHECKPOINTS if plan.rounds or not subject.taught else 0
    return round(weights * (folders + trained + _PACKED))


def memory_needed(subject: Subject, plan: Plan) -> int:
    """Bytes that the largest step takes: distilling, or pruning by second order.

    Distilling takes what training does, and the teacher. Second order takes one encoder layer's
    inputs for all calibration texts, in the dense and in the pruned model, its Hessian and the
    costs of its groups.
    """
    checkpoint = subject.checkpoint
    config = checkpoint.config
    weights = _weights(checkpoint)
    layer = 4 * config.hidden_size * _CALIBRATION_TOKENS + 6 * config.intermediate_size**2
    pruning = _LIBRARIES + weights + _FLOAT * layer
    if plan.rounds == 0 and subject.taught:
        return pruning
    tokens = min(LENGTH, config.max_length)
    fixed, row = training_bytes(
        checkpoint, TrainingPlan(BATCH, tokens, dropout=False, embeddings="frozen")
    )
    return max(pruning, fixed + BATCH * row + 2 * weights)


def check_resources(subject: Subject, plan: Plan, work: Path, threads: int | None) -> None:
    """OutputError or InputError if disk or memory will not suffice, by these estimates."""
    disk = disk_needed(subject, plan)
    place = next(folder for folder in (work, *work.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < disk:
        raise OutputError(
            f"halving {subject.title} takes about {_size(disk)} of disk beside the output, and "
            f"{_size(free)} are free in {place}: free some, or name an output folder on another "
            "disk."
        )
    memory = available_memory()
    needed = memory_needed(subject, plan)
    if memory is not None and memory.free < needed:
        less = " --effort quick takes less;" if plan.rounds else ""
        raise InputError(
            f"halving {subject.title} takes about {_size(needed)} of memory, and "
            f"{_size(memory.free)} are free:{less} close other programs, or take a machine with "
            "more."
        )


def _weights(checkpoint: Checkpoint) -> int:
    return checkpoint.tensors.nbytes


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
