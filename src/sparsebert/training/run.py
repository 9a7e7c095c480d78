"""What every run shares: smaller batches when memory runs out, the way to stop and to go on."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from transformers import Trainer

from sparsebert.errors import TrainingError
from sparsebert.torch_models import quiet_transformers
from sparsebert.training.batches import BatchPlan, is_out_of_memory
from sparsebert.training.callbacks import StopRequest, stop_on_interrupt
from sparsebert.training.cpu import kept_memory
from sparsebert.training.distributed import from_main, processes, rank
from sparsebert.training.work_folder import WorkFolder

Result = TypeVar("Result")


def until_it_fits(
    attempt: Callable[[BatchPlan, StopRequest], Result],
    plan: BatchPlan,
    work: WorkFolder,
    max_length: int,
) -> tuple[Result, list[str]]:
    """What ``attempt`` gives, called anew with half the batch as long as memory runs out.

    Also the notes on that. A plan that an earlier part of the run came down to is where it begins.
    Raises TrainingError if memory does not suffice for a single row of ``max_length`` tokens.
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
                if processes() > 1:  # the others wait in the middle of a step
                    raise TrainingError(
                        f"memory ran out in process {rank()} with batches of {plan.batch_size}: "
                        f"start again with a smaller batch_size and the rest of the step's "
                        f"{plan.rows_per_step} rows as gradient_accumulation."
                    ) from error
                smaller = plan.halved()
                if smaller is None:
                    raise TrainingError(
                        "memory ran out even with one row at a time (max_length "
                        f"{max_length}): give a smaller max_length, or close other programs."
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


@dataclass(frozen=True)
class Trained:
    """How a Trainer's run went.

    ``seconds`` and ``rows_seen`` are of this call alone, ``resumed_from`` is the step it began at;
    ``history`` is the Trainer's log, of earlier calls too.
    """

    steps: int
    resumed_from: int
    rows_seen: int
    seconds: float
    history: list[dict[str, float]]


def train(trainer: Trainer, plan: BatchPlan, work: WorkFolder, stop: StopRequest) -> Trained:
    """Train to the end, from the newest checkpoint in ``work`` if there is one.

    Raises KeyboardInterrupt, with a message on how to resume, if the user asked to stop. Around it
    Ctrl-C interrupts at once: there is no step to wait for.
    """
    last = from_main(work.last_checkpoint)
    begun = int(last.name.rpartition("-")[2]) if last else 0
    started = time.perf_counter()
    with kept_memory(), stop_on_interrupt(stop):
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    seconds = time.perf_counter() - started
    state = trainer.state
    if stop.asked:
        raise stopped(f"after step {state.global_step} of {state.max_steps}", work)
    return Trained(
        steps=state.global_step,
        resumed_from=begun,
        rows_seen=(state.global_step - begun) * plan.rows_per_step,
        seconds=seconds,
        history=_plain_history(state.log_history),
    )


def stopped(where: str, work: WorkFolder) -> KeyboardInterrupt:
    """What ends a run that the user stopped: it says how to resume."""
    return KeyboardInterrupt(
        f"stopped {where}; everything is kept in {work.path}: the same command with --resume "
        "(resume=True) goes on from there."
    )


def _plain_history(log: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Losses and validation scores by step, without the Trainer's own bookkeeping."""
    wanted = ("loss", "learning_rate", "grad_norm", "epoch", "step")
    return [
        {name: value for name, value in entry.items() if name in wanted or name.startswith("eval_")}
        for entry in log
        if "loss" in entry or any(name.startswith("eval_") for name in entry)
    ]
