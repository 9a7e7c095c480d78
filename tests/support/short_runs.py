"""Short fine-tuning runs on tiny models: their settings, ways to stop them, what must hold."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import numpy as np

from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.pruning.inspection import inspect

# 60 rows in batches of 8: 8 steps an epoch, the last of them short.
QUICK: dict[str, Any] = {"task": "custom", "epochs": 2, "learning_rate": 1e-3, "batch_size": 8}
STEPS = 16
FAST: dict[str, Any] = {"bench": False, "max_drop": math.inf}
"""Of `halve`: no latencies, and a single round."""
LEARN: dict[str, Any] = {**QUICK, "epochs": 12, "learning_rate": 3e-3, "dropout": 0.0}


def weights(folder: Path) -> dict[str, Any]:
    return dict(open_checkpoint(folder).tensors)


def assert_same_bits(first: Path, second: Path) -> None:
    left, right = weights(first), weights(second)
    assert left.keys() == right.keys()
    for name, values in left.items():
        assert np.array_equal(values.view(np.int32), right[name].view(np.int32)), name


def assert_zeros_held(folder: Path, source: Path) -> None:
    """Every pruned weight of ``source`` is +0.0 in ``folder``, bit for bit; masks are kept."""
    masks = read_masks(open_checkpoint(source))
    assert masks
    trained, tensors = open_checkpoint(folder), weights(folder)
    for name, mask in masks.items():
        assert not tensors[trained.stored_name[name]][~mask].view(np.int32).any(), name
    kept = read_masks(trained)
    assert all(np.array_equal(kept[name], mask) for name, mask in masks.items())
    assert inspect(folder).whole


def interrupt_at(step: int) -> Any:
    """A progress that presses Ctrl-C after this optimiser step."""

    def progress(label: str, done: int, total: int) -> None:
        if label == "fine-tuning" and done == step:
            signal.raise_signal(signal.SIGINT)

    return progress


class Crash(Exception):
    pass


def crash_at(step: int) -> Any:
    def progress(label: str, done: int, total: int) -> None:
        if label == "fine-tuning" and done == step:
            raise Crash

    return progress
