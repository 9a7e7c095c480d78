"""The disk that a run needs beside OUT while it trains, told before the first step.

A checkpoint is the weights and the optimiser's states, in fp32: with AdamW three times the model.
Two are kept, and the next is written before the older one goes.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from sparsebert.checkpoint import Checkpoint
from sparsebert.checkpoint.architecture import WORDS
from sparsebert.errors import OutputError
from sparsebert.training.defaults import RunOptions
from sparsebert.training.trainer import CHECKPOINTS_KEPT
from sparsebert.training.upstream_options import UpstreamOptions

_FLOAT = 4  # bytes
_STATES = {"adamw": 2, "sgd": 1, "adafactor": 0}  # numbers that the optimiser keeps of a weight


def disk_needed(checkpoint: Checkpoint, options: RunOptions | UpstreamOptions) -> int:
    """Bytes that checkpoints and result take together when they take most."""
    sizes = {
        name: math.prod(checkpoint.tensors.spec(checkpoint.stored_name[name]).shape)
        for name in checkpoint.used
    }
    weights = sum(sizes.values())
    trained = weights - (0 if options.embeddings == "train" else sizes.get(WORDS, 0))
    one = _FLOAT * (weights + _STATES.get(options.optimizer, 2) * trained)
    written = math.ceil(options.epochs)
    kept = CHECKPOINTS_KEPT + (1 if getattr(options, "early_stopping", 0) else 0)
    result = _FLOAT * weights
    return max(min(kept + 1, written) * one, min(kept, written) * one + result)


def check_disk(out: Path, work: Path, needed: int) -> None:
    """OutputError unless the disk of ``out`` has the room; what ``work`` holds already counts."""
    there = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    parent = next(folder for folder in out.resolve().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < needed - there:
        raise OutputError(
            f"training takes about {_size(needed - there)} of disk beside {out} for checkpoints "
            f"and the result, and {_size(free)} are free in {parent}: free some, or name an output "
            "folder on another disk."
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
