"""A training's work folder, ``OUT.training``, and the Trainer's ``checkpoint-N`` folders in it.

Importing this costs next to nothing: `sparsebert doctor` reads such folders without torch.
"""

from __future__ import annotations

import re
from pathlib import Path

WORK_SUFFIX = ".training"
_NAME = re.compile(r"checkpoint-(\d{1,9})")


def work_folder_of(out: Path) -> Path:
    """Where the checkpoints are kept until ``out`` is written."""
    if out.name in ("", ".."):
        out = out.resolve()
    return out.with_name(out.name + WORK_SUFFIX)


def checkpoint_at(folder: Path | str, step: int) -> Path:
    """Where a work folder has its checkpoint of an optimiser step."""
    return Path(folder, f"checkpoint-{step}")


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder, complete or not, by their optimiser step, in its order."""
    found = {
        int(match[1]): path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := _NAME.fullmatch(path.name)) and path.is_dir()
    }
    return dict(sorted(found.items()))


def step_of(checkpoint: Path) -> int:
    """The optimiser step of a checkpoint, which its name ends in."""
    return int(checkpoint.name.rpartition("-")[2])


def folder_bytes(folder: Path) -> int:
    """The size of a folder's files on disk."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
