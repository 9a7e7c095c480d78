"""Run a job to its end: train, go on with a smaller batch when memory runs out, score."""

from __future__ import annotations

import gc
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback

from sparsebert.errors import TrainingError
from sparsebert.evaluation.predictors import TorchPredictor
from sparsebert.evaluation.quiet import quiet_transformers
from sparsebert.patterns import BoolMatrix
from sparsebert.progress import Progress
from sparsebert.training.assembly import make_holds, make_masks, make_objective
from sparsebert.training.batch_plan import BatchPlan, is_out_of_memory
from sparsebert.training.interruption import StopRequest, stop_on_interrupt
from sparsebert.training.job import Job
from sparsebert.training.precision import resolve_precision
from sparsebert.training.run_callbacks import (
    CheckpointCallback,
    FiniteLossCallback,
    ProgressCallback,
)
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


def run_job(job: Job, work: WorkFolder, progress: Progress) -> Outcome:
    """Train and score. Checkpoints go to ``work``, and the newest of them is where it begins.

    Raises TrainingError if memory does not suffice for a single row, if the loss diverges or if the
    masks do not hold, and KeyboardInterrupt, with a message on how to resume, on Ctrl-C.
    """
    options = job.options
    plan = work.kept_plan() or BatchPlan(options.batch_size, options.gradient_accumulation)
    notes: list[str] = []
    with quiet_transformers(), stop_on_interrupt() as stop:
        while True:
            try:
                outcome = _attempt(job, plan, work, stop, progress)
                outcome.notes[:0] = notes
                return outcome
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                smaller = plan.halved()
                if smaller is None:
                    raise TrainingError(
                        "memory ran out even with one row at a time (max_length "
                        f"{job.max_length}): give a smaller max_length, or close other programs."
                    ) from error
            # Only here, outside of the except block, is the failed attempt's memory free again.
            notes.append(
                f"memory ran out with batches of {plan.batch_size}: went on with batches of "
                f"{smaller.batch_size}, accumulated {smaller.accumulation} times."
            )
            plan = smaller
            work.keep_plan(plan)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


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
    last = work.last_checkpoint()
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
        args=training_arguments(options, plan, work.path, len(job.rows), job.task.main_metric),
        rows=job.rows,
        objective=make_objective(job),
        precision=precision,
        score=lambda: job.validation[0].score(predictor, job.order, progress).values,
        callbacks=callbacks,
    )
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    seconds = time.perf_counter() - started
    state = trainer.state
    if stop.asked:
        raise KeyboardInterrupt(
            f"stopped after step {state.global_step} of {state.max_steps}; everything is kept in "
            f"{work.path}: the same command with --resume (resume=True) goes on from there."
        )
    begun = int(last.name.rpartition("-")[2]) if last else 0
    scores: dict[str, dict[str, float]] = {}
    notes: list[str] = []
    for split in job.validation:
        found = split.score(predictor, job.order, progress)
        scores[split.examples.split] = found.values
        notes += [f"{split.examples.split}: {note}" for note in found.notes]
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
        steps=state.global_step,
        resumed_from=begun,
        rows_seen=(state.global_step - begun) * plan.rows_per_step,
        seconds=seconds,
        history=_plain_history(state.log_history),
        scores=scores,
        notes=notes,
    )


def _plain_history(log: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Losses and validation scores by step, without the Trainer's own bookkeeping."""
    wanted = ("loss", "learning_rate", "grad_norm", "epoch", "step")
    return [
        {name: value for name, value in entry.items() if name in wanted or name.startswith("eval_")}
        for entry in log
        if "loss" in entry or any(name.startswith("eval_") for name in entry)
    ]
