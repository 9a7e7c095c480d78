"""What `finetune` and `prune_upstream` have in common.

`TrainingRun` is what differs between kinds of training; `run_training` does everything else: a
smaller batch when memory runs out, checkpoints, stopping and resuming, locked masks, several
processes, and the scores of the trained model.
"""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback

from sparsebert.errors import TrainingError
from sparsebert.evaluation.metrics import ByClass, Scores
from sparsebert.evaluation.predictors import TorchPredictor
from sparsebert.evaluation.scoring import ScoredSplit
from sparsebert.patterns import BoolMatrix
from sparsebert.progress import Progress
from sparsebert.torch_models import quiet_transformers
from sparsebert.training.batches import BatchPlan, is_out_of_memory
from sparsebert.training.callbacks import (
    CheckpointCallback,
    EarlyStopping,
    FiniteLossCallback,
    MemoryCallback,
    ProgressCallback,
    StopRequest,
    stop_on_interrupt,
)
from sparsebert.training.checkpoint_folders import step_of
from sparsebert.training.cpu import kept_memory, resolve_precision
from sparsebert.training.defaults import RunOptions
from sparsebert.training.distributed import (
    check_shardable,
    from_main,
    full_state_dict,
    is_sharded,
    processes,
    rank,
)
from sparsebert.training.locked_masks import LockedMasksCallback
from sparsebert.training.objective import Objective
from sparsebert.training.trainer import ObjectiveTrainer, TrainingSet, training_arguments
from sparsebert.training.upstream.options import UpstreamOptions
from sparsebert.training.word_embeddings import frozen_embeddings, used_embeddings
from sparsebert.training.work_folder import WorkFolder

Result = TypeVar("Result")


ModelPatch = Callable[[PreTrainedModel], AbstractContextManager[None]]
"""Changes how a model computes while it is trained and scored.

The context is entered before the optimiser is created, and left after the last score and before the
result is saved; what was trained is kept. Inside it, the names and shapes in the model's
``state_dict`` must stay those of transformers, because checkpoints are written from it.
"""


class TrainingRun(ABC):
    """What differs between kinds of training.

    ``validation`` holds the splits that the trained model is scored on; ``label_order`` is the
    position of each of the task's labels in the head, int64 ``[labels]``, or None without labels.
    With ``patience`` above 0, the model is scored on the first of these splits after each epoch,
    training ends after that many epochs without an improvement in the metric ``best_on``, and the
    model of the best epoch is kept.
    """

    progress_label = "fine-tuning"
    accumulation = 1  # batches per optimiser step
    schedule = "linear"  # transformers' name of the learning-rate schedule
    patience = 0
    best_on = ""
    validation: Sequence[ScoredSplit] = ()
    label_order: npt.NDArray[np.int64] | None = None

    def __init__(self, options: RunOptions | UpstreamOptions, examples: TrainingSet) -> None:
        self.options = options
        self.examples = examples

    @abstractmethod
    def model(self) -> PreTrainedModel:
        """The model as it is before the first step."""

    def predictor(self, model: PreTrainedModel, plan: BatchPlan) -> Any:
        """What answers the rows of ``validation`` with the current weights of ``model``."""
        return TorchPredictor(model, plan.batch_size)

    @abstractmethod
    def objective(self) -> Objective:
        """The loss."""

    @abstractmethod
    def masks(
        self, model: PreTrainedModel, plan: BatchPlan, checkpoint: Path | None
    ) -> LockedMasksCallback | None:
        """What locks or changes the masks of ``model``; None for a dense model that stays dense.

        ``checkpoint`` is the one that the run resumes from, if any. Once the run has ended, the
        callback's ``masks.masks`` are those of the result.
        """

    def rate(self, plan: BatchPlan) -> Callable[[int], float] | None:
        """The learning rate by step, as a share of its peak; None to follow ``schedule``."""
        return None

    def patches(self) -> list[ModelPatch]:
        """The patches of the model, in the order in which they are entered."""
        if self.options.embeddings == "used":
            return [partial(used_embeddings, ids=self.examples.tokens.ids)]
        return [frozen_embeddings] if self.options.embeddings == "frozen" else []

    def check_shardable(self) -> None:
        """TrainingError for options that need the whole model, which FSDP divides."""
        check_shardable(self.options)


@dataclass
class Outcome:
    """A finished run.

    ``masks`` are the result's, empty for a dense model; ``precision`` is what "auto" resolved to;
    ``scores`` and ``by_class`` are those of the returned model, by validation split.
    """

    model: PreTrainedModel
    masks: dict[str, BoolMatrix]
    plan: BatchPlan
    precision: str
    trained: Trained
    scores: dict[str, dict[str, float]]
    by_class: dict[str, ByClass]
    notes: list[str] = field(default_factory=list)


def run_training(run: TrainingRun, work: WorkFolder, progress: Progress) -> Outcome:
    """Train and score. Checkpoints are kept in ``work``; the run resumes from the newest one.

    Raises TrainingError if memory does not suffice for a single example, if the loss diverges or
    if the masks do not hold, and KeyboardInterrupt, with a message on how to resume, on Ctrl-C.
    """
    outcome, notes = until_it_fits(
        lambda plan, stop: _attempt(run, plan, work, stop, progress),
        BatchPlan(run.options.batch_size, run.accumulation),
        work,
        run.options.max_length,
    )
    outcome.notes[:0] = notes
    return outcome


def _attempt(
    run: TrainingRun, plan: BatchPlan, work: WorkFolder, stop: StopRequest, progress: Progress
) -> Outcome:
    model = run.model()
    with ExitStack() as patched:
        for patch in run.patches():
            patched.enter_context(patch(model))
        return _train_and_score(run, model, plan, work, stop, progress)


def _train_and_score(
    run: TrainingRun,
    model: PreTrainedModel,
    plan: BatchPlan,
    work: WorkFolder,
    stop: StopRequest,
    progress: Progress,
) -> Outcome:
    predictor = run.predictor(model, plan)
    masks = run.masks(model, plan, from_main(work.last_checkpoint))
    callbacks: list[TrainerCallback] = [
        ProgressCallback(progress, run.progress_label),
        MemoryCallback(),
        CheckpointCallback(stop),
        FiniteLossCallback(),
        *([] if masks is None else [masks]),
    ]
    if run.patience:
        callbacks.append(EarlyStopping(early_stopping_patience=run.patience))
    precision = resolve_precision(run.options.precision)
    trainer = ObjectiveTrainer(
        model=model,
        args=training_arguments(
            run.options,
            plan,
            work.path,
            len(run.examples),
            best_on=run.best_on if run.patience else None,
            schedule=run.schedule,
        ),
        examples=run.examples,
        objective=run.objective(),
        precision=precision,
        rate=run.rate(plan),
        score=lambda: run.validation[0].score(predictor, run.label_order, progress).values,
        callbacks=callbacks,
    )
    if trainer.is_fsdp_enabled:
        run.check_shardable()
    trained = train(trainer, plan, work, stop)
    if is_sharded(trainer.model):
        weights = full_state_dict(trainer.model)
        model = run.model()
        model.load_state_dict(weights)
        predictor = run.predictor(model, plan)
    try:
        scores = from_main(lambda: _scores(run, predictor, progress))
    except KeyboardInterrupt as stop_now:
        raise stopped("while scoring the trained model", work) from stop_now
    notes = [f"{split}: {note}" for split, found in scores.items() for note in found.notes]
    state = trainer.state
    if state.global_step < state.max_steps:
        notes.append(
            f"stopped early, after step {state.global_step} of {state.max_steps}; the model is "
            f"the one of step {state.best_global_step}, which scored best on "
            f"{run.validation[0].examples.split}."
        )
    return Outcome(
        model=model,
        masks={} if masks is None else masks.masks.masks,
        plan=plan,
        precision=precision,
        trained=trained,
        scores={split: found.values for split, found in scores.items()},
        by_class={split: found.by_class for split, found in scores.items() if found.by_class},
        notes=notes,
    )


def _scores(run: TrainingRun, predictor: Any, progress: Progress) -> dict[str, Scores]:
    """The scores on each validation split, by its name."""
    return {
        split.examples.split: split.score(predictor, run.label_order, progress)
        for split in run.validation
    }


def until_it_fits(
    attempt: Callable[[BatchPlan, StopRequest], Result],
    plan: BatchPlan,
    work: WorkFolder,
    max_length: int,
) -> tuple[Result, list[str]]:
    """The result of ``attempt``, which is called again with half the batch if memory runs out.

    Also returns notes on that. A resumed run begins with the batch size that it had come down to.
    Raises TrainingError if memory does not suffice for one example of ``max_length`` tokens, or if
    memory runs out in one of several processes.
    """
    plan = (work.kept_plan() or plan).spread(processes())
    notes: list[str] = []
    stop = StopRequest()
    with quiet_transformers():
        while True:
            try:
                return attempt(plan, stop), notes
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if processes() > 1:  # the others are waiting in the middle of a step
                    raise TrainingError(
                        f"memory ran out in process {rank()} with batches of {plan.batch_size}: "
                        f"start again with a smaller batch_size, and raise gradient_accumulation "
                        f"to keep {plan.examples_per_step} rows per step."
                    ) from error
                smaller = plan.halved()
                if smaller is None:
                    raise TrainingError(
                        "memory ran out even with one row at a time (max_length "
                        f"{max_length}): use a smaller max_length, or close other programs."
                    ) from error
            # The memory of the failed attempt is only freed here, outside the except block.
            notes.append(
                f"memory ran out with batches of {plan.batch_size}: continued with batches of "
                f"{smaller.batch_size}, accumulated {smaller.accumulation} times."
            )
            plan = smaller
            work.keep_plan(plan)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


@dataclass(frozen=True)
class Trained:
    """How a Trainer's run went.

    ``seconds`` and ``examples_seen`` are those of this call alone, ``resumed_from`` is the step at
    which it began; ``history`` is the Trainer's log, including earlier calls.
    """

    steps: int
    resumed_from: int
    examples_seen: int
    seconds: float
    history: list[dict[str, float]]

    @property
    def examples_per_second(self) -> float:
        """The training speed of this call."""
        return self.examples_seen / max(self.seconds, 1e-9)


def train(trainer: Trainer, plan: BatchPlan, work: WorkFolder, stop: StopRequest) -> Trained:
    """Train to the end, from the newest checkpoint in ``work`` if there is one.

    Raises KeyboardInterrupt, with a message on how to resume, if the user stopped it. Before and
    after the training itself, Ctrl-C interrupts immediately, because there is no step to finish.
    """
    last = from_main(work.last_checkpoint)
    begun = step_of(last) if last else 0
    started = time.perf_counter()
    with kept_memory(), stop_on_interrupt(stop):
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    seconds = time.perf_counter() - started
    state = trainer.state
    if stop.requested:
        raise stopped(f"after step {state.global_step} of {state.max_steps}", work)
    return Trained(
        steps=state.global_step,
        resumed_from=begun,
        examples_seen=(state.global_step - begun) * plan.examples_per_step,
        seconds=seconds,
        history=_plain_history(state.log_history),
    )


def stopped(where: str, work: WorkFolder) -> KeyboardInterrupt:
    """The exception that ends a run stopped by the user; it says how to resume."""
    return KeyboardInterrupt(
        f"stopped {where}; everything is kept in {work.path}: the same command with --resume "
        "(resume=True) continues from there."
    )


def _plain_history(log: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Losses and validation scores by step, without the Trainer's own bookkeeping."""
    wanted = ("loss", "learning_rate", "grad_norm", "epoch", "step")
    return [
        {name: value for name, value in entry.items() if name in wanted or name.startswith("eval_")}
        for entry in log
        if "loss" in entry or any(name.startswith("eval_") for name in entry)
    ]
