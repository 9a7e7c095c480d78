"""What a run is put together from: its loss, its masks, and what takes hold of its model.

One function a part; each reads the options and returns the thing that does what they say.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.pruning.gradual import Ramp
from sparsebert.training.batch_plan import BatchPlan
from sparsebert.training.distillation import distillation_objective
from sparsebert.training.embeddings import hold_embeddings
from sparsebert.training.hold import Hold
from sparsebert.training.job import Job
from sparsebert.training.locked_masks import LockedMasks, LockedMasksCallback
from sparsebert.training.mask_evolution import Evolution, EvolvingMasks, EvolvingMasksCallback
from sparsebert.training.objective import Objective, TaskObjective
from sparsebert.training.quantization_aware import Int8Arithmetic
from sparsebert.training.rewinding import rewound_rate


def make_objective(job: Job) -> Objective:
    """The loss: the task's own, or a distillation with a teacher."""
    if job.teacher is None:
        return TaskObjective(job.task.kind)
    return distillation_objective(job.teacher, job.task.kind, job.options)


def make_masks(job: Job, plan: BatchPlan, last: Path | None) -> LockedMasksCallback | None:
    """What holds or changes the masks; None for a dense model that stays dense.

    ``last`` is the checkpoint that the run goes on from, with the masks of that moment. The
    callback's ``masks.masks`` are those of the result when the run has ended.
    """
    if job.options.method != "lock":
        masks = EvolvingMasks(_evolution(job, plan), job.masks)
        if last is not None:
            masks.restore(last)
        return EvolvingMasksCallback(masks)
    if not job.masks:
        return None
    return LockedMasksCallback(
        LockedMasks(read_masks(open_checkpoint(last)) if last else job.masks)
    )


def make_rate(job: Job, plan: BatchPlan) -> Callable[[int], float] | None:
    """The schedule of the learning rate, where it is not the usual one."""
    if job.options.method == "lock":
        return None
    return partial(rewound_rate, _evolution(job, plan).ramp)


def _evolution(job: Job, plan: BatchPlan) -> Evolution:
    rows, options = len(job.rows), job.options
    ramp = Ramp.of_run(
        plan.steps(rows, options.epochs),
        plan.warmup_steps(rows, options.epochs, options.warmup_ratio),
    )
    return Evolution(job.options.method, job.options.target, ramp, job.to_prune)


def make_holds(job: Job) -> list[Hold]:
    """What takes hold of the model, in the order in which it is attached."""
    embeddings = hold_embeddings(job.options.embeddings, job.rows.rows.ids)
    holds: list[Hold] = [embeddings] if embeddings is not None else []
    if job.options.quantize == "int8":
        holds.append(Int8Arithmetic())
    return holds
