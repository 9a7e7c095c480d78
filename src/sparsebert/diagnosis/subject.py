"""What the user pointed at: a model folder, a folder of seeds, or a training's own folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sparsebert.checkpoint import resolve_model, transformer_folder
from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.checkpoint.seeds import seed_folders
from sparsebert.errors import CheckpointError

_CHECKPOINT = re.compile(r"checkpoint-(\d{1,9})")
OPTIMIZER_NAME = "optimizer.pt"


@dataclass(frozen=True)
class Subject:
    """``path`` is the folder; ``models`` are the model folders in it: itself, or one for each seed.

    ``checkpoints`` are a Trainer's ``checkpoint-N`` that stand in it, or in ``PATH.training``.
    """

    path: Path
    models: tuple[Path, ...]
    checkpoints: tuple[Path, ...]


def find_subject(model: str | Path) -> Subject:
    """Look what ``model`` is. CheckpointError if it is nothing that a model comes of."""
    path = resolve_model(model)
    beside = path.with_name(path.name + ".training")
    checkpoints = [*_checkpoints(path), *_checkpoints(beside)]
    if (path / OPTIMIZER_NAME).is_file():
        checkpoints.insert(0, path)
    if _is_model(path):
        return Subject(path, (path,), tuple(checkpoints))
    seeds = list(seed_folders(path).values())
    for seed in seeds:
        unfinished = seed.with_name(seed.name + ".training")
        checkpoints += _checkpoints(unfinished)
    if not seeds and not checkpoints:
        raise CheckpointError(
            f"{path} is not a model folder (it has no {CONFIG_NAME}), nor a folder of seed-1, "
            "seed-2, ... or of a training's checkpoints."
        )
    return Subject(path, tuple(seeds), tuple(checkpoints))


def _is_model(folder: Path) -> bool:
    try:
        return (transformer_folder(folder) / CONFIG_NAME).is_file()
    except CheckpointError:  # a damaged modules.json: opening the folder tells more
        return True


def _checkpoints(folder: Path) -> list[Path]:
    """The Trainer's checkpoints in a folder, by their step."""
    if not folder.is_dir():
        return []
    found = [(_CHECKPOINT.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir()]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]
