"""Trainer callbacks: progress, memory, timed checkpoints, stopping, finite loss."""

from __future__ import annotations

import math
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

from transformers import EarlyStoppingCallback, TrainerCallback

from sparsebert.checkpoint.atomic import sync_all
from sparsebert.errors import TrainingError
from sparsebert.progress import Progress
from sparsebert.training.checkpoint_folders import checkpoint_at, checkpoints_in, step_of
from sparsebert.training.cpu import release_free_memory, resident_memory
from sparsebert.training.distributed import any_of

CHECKPOINTS_KEPT = 2  # besides the best one: the last, and one to fall back on if it is damaged
_SECONDS_BETWEEN_CHECKPOINTS = 600.0
_MOST_HELD = 1.5  # times what a step takes: exceeded so rarely that refaulting pages costs little


class DivergedError(TrainingError):
    """The loss is no longer finite; nothing in this run is worth resuming."""


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Reports optimiser steps to sparsebert's own progress display."""

    def __init__(self, progress: Progress, label: str = "fine-tuning") -> None:
        self._progress = progress
        self._label = label

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress(self._label, state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress(self._label, state.global_step, state.max_steps)


class MemoryCallback(TrainerCallback):  # type: ignore[misc]
    """Releases the memory that `kept_memory` holds once it is much more than a step takes.

    Texts of many lengths mean blocks of many sizes, which leave gaps that later blocks do not fit
    into; a long run would grow until the system kills it. What a step takes is measured after a
    step that began with nothing held in reserve, such as the first.
    """

    def __init__(self) -> None:
        self._taken = 0  # bytes
        self._fresh = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        held = resident_memory()
        if self._fresh:
            self._taken = max(self._taken, held)
        self._fresh = held > _MOST_HELD * self._taken
        if self._fresh:
            release_free_memory()


class EarlyStopping(EarlyStoppingCallback):  # type: ignore[misc]
    """Does not train on when a run that had stopped early is resumed."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


class CheckpointCallback(TrainerCallback):  # type: ignore[misc]
    """Saves every ten minutes within an epoch, and immediately when the user wants to stop.

    A resumed run finds its best checkpoint wherever its folder is now, and takes no further step if
    none is left. Once a new checkpoint is on disk, older ones are removed by step number, not by
    modification time as the Trainer does, because the system clock may have been set back.
    """

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self._saved = time.monotonic()
        self._begun = 0  # steps

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._saved = time.monotonic()
        self._begun = state.global_step
        if state.best_global_step:
            best = checkpoint_at(args.output_dir, state.best_global_step)
            state.best_model_checkpoint = str(best)
        if state.global_step >= state.max_steps:
            control.should_training_stop = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Several processes must stop and save together: steps and saving are collective.
        self._stop.requested = any_of(self._stop.requested)
        if self._stop.requested:
            control.should_save = control.should_training_stop = True
        elif any_of(time.monotonic() - self._saved > _SECONDS_BETWEEN_CHECKPOINTS):
            control.should_save = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # To the Trainer, a run that stops looks like the end of an epoch. The checkpoint is already
        # written, and an evaluation within an epoch would count towards early stopping.
        ended = (state.epoch or 0) % 1 == 0 or state.global_step >= state.max_steps
        stops = self._stop.requested and not (ended and control.should_evaluate)
        if stops or state.global_step == self._begun:
            control.should_save = control.should_evaluate = False

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._saved = time.monotonic()
        if args.should_save:
            newest = checkpoint_at(args.output_dir, state.global_step)
            sync_all(newest)
            _remove_older(newest, state.best_model_checkpoint)


def _remove_older(newest: Path, best: str | None) -> None:
    """Remove all but the last `CHECKPOINTS_KEPT` checkpoints up to ``newest``, and the ``best``.

    A higher number was left by a killed run: it is neither counted nor removed.
    """
    last = step_of(newest)
    found = [path for step, path in checkpoints_in(newest.parent).items() if step <= last]
    for path in found[:-CHECKPOINTS_KEPT]:
        if best is None or path != Path(best):
            shutil.rmtree(path, ignore_errors=True)


class FiniteLossCallback(TrainerCallback):  # type: ignore[misc]
    """Stops a run whose loss has become NaN or infinite."""

    def on_log(
        self, args: Any, state: Any, control: Any, *, logs: dict[str, float], **kwargs: Any
    ) -> None:
        loss = logs.get("loss")
        if loss is not None and not math.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss} after step {state.global_step}: training has diverged. "
                f"Lower the learning rate (it was {args.learning_rate:g}) or lengthen the warm-up."
            )


@dataclass
class StopRequest:
    """Whether the user wants the run to stop."""

    requested: bool = False


@contextmanager
def stop_on_interrupt(request: StopRequest) -> Iterator[None]:
    """Inside, turn the first Ctrl-C into a request; a second one interrupts immediately, as usual.

    SIGTERM, which schedulers and containers send some time before they kill, is also a request. It
    may arrive repeatedly, and launchers send it after a Ctrl-C, so it never interrupts. Python
    delivers signals to the main thread only; in other threads, nothing changes.
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
