"""Trainer callbacks: progress, checkpoints by the clock, stop on a signal, a finite loss."""

from __future__ import annotations

import math
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparsebert.checkpoint.atomic import sync_all
from sparsebert.errors import TrainingError
from sparsebert.progress import Progress
from sparsebert.training.cpu import release_free_memory, resident_memory
from sparsebert.training.distributed import any_of

CHECKPOINTS_KEPT = 2  # beside the best one: the last, and one to fall back on if that is damaged
_SECONDS_BETWEEN_CHECKPOINTS = 600.0
_MOST_HELD = 1.5  # times what a step takes: so seldom that touching the pages anew costs little


class DivergedError(TrainingError):
    """The loss is not a finite number any more; nothing in this run is worth resuming."""


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Reports optimiser steps to the project's own progress."""

    def __init__(self, progress: Progress, label: str = "fine-tuning") -> None:
        self._progress = progress
        self._label = label

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._progress(self._label, state.global_step, state.max_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._progress(self._label, state.global_step, state.max_steps)


class MemoryCallback(TrainerCallback):  # type: ignore[misc]
    """Gives back the memory that `kept_memory` keeps once it is much more than a step takes.

    Blocks of ever other sizes, as of texts of many lengths, leave gaps that none of the next fits
    in, and a long run would grow until the system ends it. What a step takes is what is held after
    one that began with nothing to spare, as the first does.
    """

    def __init__(self) -> None:
        self._taken = 0  # bytes
        self._fresh = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        held = resident_memory()
        if self._fresh:
            self._taken = max(self._taken, held)
        self._fresh = held > _MOST_HELD * self._taken
        if self._fresh:
            release_free_memory()


class CheckpointCallback(TrainerCallback):  # type: ignore[misc]
    """Saves every ten minutes within an epoch, and at once when the user wants to stop.

    Older checkpoints go when a new one is on disk: those of lower numbers, for the system's clock,
    by which the Trainer would choose, may be set back meanwhile.
    """

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self._saved = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._saved = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Several processes stop and save together: they meet in every step, and in saving.
        self._stop.requested = any_of(self._stop.requested)
        if self._stop.requested:
            control.should_save = control.should_training_stop = True
        elif any_of(time.monotonic() - self._saved > _SECONDS_BETWEEN_CHECKPOINTS):
            control.should_save = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._stop.requested:
            # The Trainer takes a run that stops for one whose epoch ended: its checkpoint is
            # written already, and an evaluation here would count for early stopping.
            control.should_save = control.should_evaluate = False

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._saved = time.monotonic()
        if args.should_save:
            newest = Path(args.output_dir, f"checkpoint-{state.global_step}")
            sync_all(newest)
            _remove_older(newest, state.best_model_checkpoint)


def _remove_older(newest: Path, best: str | None) -> None:
    """Keep `CHECKPOINTS_KEPT` checkpoints up to ``newest``, and the ``best`` one.

    One of a higher number is what a killed run left unfinished: it counts for none of these.
    """
    last = int(newest.name.rpartition("-")[2])
    found = {
        int(match[1]): path
        for path in newest.parent.iterdir()
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name)) and int(match[1]) <= last
    }
    for number in sorted(found)[:-CHECKPOINTS_KEPT]:
        if best is None or found[number] != Path(best):
            shutil.rmtree(found[number], ignore_errors=True)


class FiniteLossCallback(TrainerCallback):  # type: ignore[misc]
    """Ends a run whose loss has become NaN or infinite."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss} after step {state.global_step}: the training has diverged. "
                f"Lower the learning rate (it was {args.learning_rate:g}) or lengthen the warm-up."
            )


@dataclass
class StopRequest:
    """Whether the user wants the run to stop."""

    requested: bool = False


@contextmanager
def stop_on_interrupt(request: StopRequest) -> Iterator[None]:
    """Turn the first Ctrl-C inside into a request; the second one interrupts at once as ever.

    So does SIGTERM, which schedulers and containers send some time before they kill; there may be
    several of it, and a launcher of processes sends it after a Ctrl-C. Python delivers signals to
    the main thread only: elsewhere nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if request.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.requested = True

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, on_signal) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
