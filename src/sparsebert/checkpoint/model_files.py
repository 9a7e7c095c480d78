"""The files that a model consists of, chosen by name, and their fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from sparsebert.checkpoint.folder_files import check_inside, has_file
from sparsebert.checkpoint.modules import module_folders, transformer_folder
from sparsebert.checkpoint.tensors import INDEX_NAME

_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".vocab", ".metadata")  # .metadata: ColBERT's
_PUBLISHED = (*_SUFFIXES, ".safetensors", ".yaml", ".md")
_LICENCES = ("LICENSE", "LICENCE", "NOTICE", "COPYING")
TRAINING_NAME = "training.json"  # written by the training run that made the model
EVALUATION_NAME = "evaluation.json"  # from `evaluate`, of exactly this model
CHECKSUMS_NAME = "checksums.json"  # of a packed folder, not of folders made from it
_CHUNK = 1 << 20  # bytes hashed at a time


def auxiliary_files(folder: Path) -> list[Path]:
    """The files directly in ``folder`` that every step copies, sorted by name.

    Those of config, tokenizer and modules, records of training and licences; neither weights,
    card, scores nor hidden files.
    """
    return _files(folder, _is_auxiliary)


def weight_files(folder: Path) -> list[Path]:
    """Weights and masks directly in ``folder``, with the index of shards, sorted by name."""
    return _files(folder, is_weights)


def published_files(folder: Path) -> dict[str, Path]:
    """All of a model that is copied or pushed, by path in its folder; never hidden files.

    Raises CheckpointError for a link that leads out of the folder: in a model from elsewhere, it
    could point to any of the user's files. Links within the hub's cache are how the hub stores
    files.
    """
    found = {}
    for place in _folders(folder):
        for path in _files(place, _is_published):
            check_inside(path, folder)
            found[path.relative_to(folder).as_posix()] = path
    return found


def files_of_answers(folder: Path) -> dict[str, Path]:
    """What answers depend on, by path in the folder: `published_files` without licences, card and
    scores. ``folder`` may be dense, sparse or packed.
    """
    return {
        path.relative_to(folder).as_posix(): path
        for place in _folders(folder)
        for path in (*weight_files(place), *auxiliary_files(place))
        if not is_licence(path)
    }


def model_fingerprint(folder: Path) -> str:
    """SHA-256 of `files_of_answers`."""
    return fingerprint(files_of_answers(folder))


def fingerprint(files: Mapping[str, Path]) -> str:
    """SHA-256 of files under these names, in this order."""
    digest = hashlib.sha256()
    for name, path in files.items():
        digest.update(f"{name} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def is_licence(path: Path) -> bool:
    """Whether a file is a licence, by its name."""
    return path.name.split(".")[0].upper() in _LICENCES


def is_weights(path: Path) -> bool:
    """Whether a file holds weights or masks, or is the index of their shards, by its name."""
    return path.name == INDEX_NAME or path.suffix == ".safetensors"


def _is_auxiliary(path: Path) -> bool:
    # An index lists the shards of weights, which are not copied.
    if path.name.endswith(".index.json") or path.name in (EVALUATION_NAME, CHECKSUMS_NAME):
        return False
    return path.suffix in _SUFFIXES or is_licence(path)


def _is_published(path: Path) -> bool:
    return path.suffix in _PUBLISHED or is_licence(path)


def _folders(folder: Path) -> list[Path]:
    """The transformer's, the model's own and those of its modules."""
    return list(dict.fromkeys((transformer_folder(folder), folder, *module_folders(folder))))


def _files(folder: Path, belongs: Callable[[Path], bool]) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and belongs(path) and has_file(path)
    ]
