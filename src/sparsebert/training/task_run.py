"""A fine-tuning from its job to the scores of the trained model.

What the run is put together from, its loss, its masks and what takes hold of its model, is one
function a part; each reads the options and returns the thing that does what they say.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel, TrainerCallback

from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.checkpoint.config import parse_config
from sparsebert.evaluation.metrics import ByClass, Scores
from sparsebert.evaluation.predictors import TorchPredictor
from sparsebert.patterns import BoolMatrix
from sparsebert.progress import Progress
from sparsebert.pruning.gradual import Ramp
from sparsebert.training.batches import BatchPlan
from sparsebert.training.callbacks import (
    CheckpointCallback,
    FiniteLossCallback,
    ProgressCallback,
    StopRequest,
)
from sparsebert.training.cpu import choose_attention, resolve_precision
from sparsebert.training.distillation.objective import distillation_objective
from sparsebert.training.distillation.teacher import copy_head
from sparsebert.training.distributed import check_shardable, from_main, is_sharded, whole_state
from sparsebert.training.embeddings import hold_embeddings
from sparsebert.training.gradual_pruning import (
    Evolution,
    EvolvingMasks,
    EvolvingMasksCallback,
    rewound_rate,
)
from sparsebert.training.hold import Hold
from sparsebert.training.job import Job
from sparsebert.training.locked_masks import LockedMasks, LockedMasksCallback
from sparsebert.training.objective import Objective, TaskObjective
from sparsebert.training.quantization_aware import Int8Arithmetic
from sparsebert.training.run import stopped, train, until_it_fits
from sparsebert.training.task_model import build_model
from sparsebert.training.trainer import TaskTrainer, early_stopping_callback, training_arguments
from sparsebert.training.work_folder import WorkFolder


@dataclass
class Outcome:
    """A finished run.

    ``masks`` are the result's, empty for a dense model; ``precision`` is what "auto" came to.
    ``seconds`` and ``rows_seen`` are of this call alone, ``resumed_from`` is the step it began at;
    ``history`` is the Trainer's log, of earlier calls too; ``scores`` are of the model as returned.
    """

    model: PreTrainedModel
    masks: dict[str, BoolMatrix]
    plan: BatchPlan
    precision: str
    steps: int
    resumed_from: int
    rows_seen: int
    seconds: float
    history: list[dict[str, float]]
    scores: dict[str, dict[str, float]]
    notes: list[str] = field(default_factory=list)
    by_class: dict[str, ByClass] = field(default_factory=dict)


def run_job(job: Job, work: WorkFolder, progress: Progress) -> Outcome:
    """Train and score. Checkpoints go to ``work``, and the newest of them is where it begins.

    Raises TrainingError if memory does not suffice for a single row, if the loss diverges or if the
    masks do not hold, and KeyboardInterrupt, with a message on how to resume, on Ctrl-C.
    """
    options = job.options
    plan = BatchPlan(options.batch_size, options.gradient_accumulation)
    outcome, notes = until_it_fits(
        lambda fitting, stop: _attempt(job, fitting, work, stop, progress),
        plan,
        work,
        options.max_length,
    )
    outcome.notes[:0] = notes
    return outcome


def _attempt(
    job: Job, plan: BatchPlan, work: WorkFolder, stop: StopRequest, progress: Progress
) -> Outcome:
    options = job.options
    model = build_model(
        job.checkpoint,
        job.config,
        keep_head=job.keep_head,
        dropout=options.dropout,
        seed=options.seed,
    )
    choose_attention(model, job.rows.rows.lengths)
    if job.teacher is not None and not job.keep_head:
        copy_head(job.teacher, model, parse_config(job.config, (), job.checkpoint.path).head_shape)
    with ExitStack() as held:
        for hold in make_holds(job):
            held.callback(hold.detach)
            hold.attach(model)
        return _train(job, model, plan, work, stop, progress)


def _train(
    job: Job,
    model: PreTrainedModel,
    plan: BatchPlan,
    work: WorkFolder,
    stop: StopRequest,
    progress: Progress,
) -> Outcome:
    options = job.options
    predictor = TorchPredictor(model, plan.batch_size)
    last = from_main(work.last_checkpoint)
    callbacks: list[TrainerCallback] = [
        ProgressCallback(progress),
        CheckpointCallback(stop),
        FiniteLossCallback(),
    ]
    masks = make_masks(job, plan, last)
    if masks is not None:
        callbacks.append(masks)
    if options.early_stopping:
        callbacks.append(early_stopping_callback(options.early_stopping))
    precision = resolve_precision(options.precision)
    trainer = TaskTrainer(
        model=model,
        args=training_arguments(
            options,
            plan,
            work.path,
            len(job.rows),
            best_on=job.task.main_metric if options.early_stopping else None,
        ),
        rows=job.rows,
        objective=make_objective(job),
        precision=precision,
        rate=make_rate(job, plan),
        score=lambda: job.validation[0].score(predictor, job.order, progress).values,
        callbacks=callbacks,
    )
    if trainer.is_fsdp_enabled:
        check_shardable(options)
    trained = train(trainer, plan, work, stop)
    if is_sharded(trainer.model):
        model = _whole(job, trainer.model)
        predictor = TorchPredictor(model, plan.batch_size)
    state = trainer.state
    try:
        found, notes = from_main(lambda: _score(job, predictor, progress))
    except KeyboardInterrupt as stop_now:
        raise stopped("while the trained model was scored", work) from stop_now
    if state.global_step < state.max_steps:
        notes.append(
            f"stopped early, after step {state.global_step} of {state.max_steps}; the model is "
            f"that of step {state.best_global_step}, the best on "
            f"{job.validation[0].examples.split}."
        )
    return Outcome(
        model=model,
        masks=masks.masks.masks if masks is not None else {},
        plan=plan,
        precision=precision,
        steps=trained.steps,
        resumed_from=trained.resumed_from,
        rows_seen=trained.rows_seen,
        seconds=trained.seconds,
        history=trained.history,
        scores={split: scores.values for split, scores in found.items()},
        notes=notes,
        by_class={split: scores.by_class for split, scores in found.items() if scores.by_class},
    )


def _score(
    job: Job, predictor: TorchPredictor, progress: Progress
) -> tuple[dict[str, Scores], list[str]]:
    """The scores of every validation split, and what is to be said about them."""
    found = {
        split.examples.split: split.score(predictor, job.order, progress)
        for split in job.validation
    }
    return found, [f"{name}: {note}" for name, scores in found.items() for note in scores.notes]


def _whole(job: Job, sharded: PreTrainedModel) -> PreTrainedModel:
    """An ordinary model with the weights of one that is cut over processes."""
    model = build_model(job.checkpoint, job.config, keep_head=False, dropout=None, seed=0)
    model.load_state_dict(whole_state(sharded))
    return model


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
