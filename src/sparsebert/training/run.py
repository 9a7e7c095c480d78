"""Run a job to its end: train, go on with a smaller batch when memory runs out, score."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from transformers import PreTrainedModel, TrainerCallback

from sparsebert.checkpoint.config import parse_config
from sparsebert.evaluation.metrics import ByClass, Scores
from sparsebert.evaluation.predictors import TorchPredictor
from sparsebert.patterns import BoolMatrix
from sparsebert.progress import Progress
from sparsebert.training.assembly import make_holds, make_masks, make_objective, make_rate
from sparsebert.training.attention import choose_attention
from sparsebert.training.batch_plan import BatchPlan
from sparsebert.training.interruption import StopRequest
from sparsebert.training.job import Job
from sparsebert.training.loop import stopped, train, until_it_fits
from sparsebert.training.precision import resolve_precision
from sparsebert.training.ranks import from_main
from sparsebert.training.run_callbacks import (
    CheckpointCallback,
    FiniteLossCallback,
    ProgressCallback,
)
from sparsebert.training.sharding import check_shardable, is_sharded, whole_state
from sparsebert.training.task_model import build_model
from sparsebert.training.teacher_head import copy_head
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
