"""The small files beside the weights that make a folder complete: tokenizer, pooling, labels."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.checkpoint.json_files import read_json, write_json
from sparsebert.checkpoint.modules import (
    MODULES_NAME,
    module_folders,
    read_modules,
    transformer_folder,
)

_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".vocab")
_LICENCES = ("LICENSE", "LICENCE", "NOTICE", "COPYING")
TRAINING_NAME = "training.json"  # what the training that made it wrote about itself
EVALUATION_NAME = "evaluation.json"  # what `evaluate` found for this very model, and for no other
_LARGEST = 64 << 20  # bytes: a tokenizer is a few MiB, weights in odd formats are more


def copy_auxiliary_files(source: Path, target: Path) -> None:
    """Copy tokenizer files, pooling modules, label files and licences into ``target``.

    Not copied: weights in any format, config.json, README.md (each step writes its own), the scores
    of `evaluate`, hidden files, and anything large. If sentence-transformers placed the transformer
    in a sub-folder, its files come to the top of ``target`` and modules.json says so, so that every
    folder sparsebert writes opens with transformers as well.
    """
    transformer = transformer_folder(source)
    for folder in {source: None, transformer: None}:
        _copy_files(folder, target, without=(CONFIG_NAME,))
    for folder in module_folders(source):
        if folder != transformer:
            inner = target / folder.relative_to(source)
            inner.mkdir(parents=True, exist_ok=True)
            _copy_files(folder, inner)
    if transformer != source:
        modules: list[dict[str, Any]] = read_json(source / MODULES_NAME)
        for module, read in zip(modules, read_modules(source), strict=True):
            if read.kind == "Transformer":
                module["path"] = ""
        write_json(target / MODULES_NAME, modules)


def auxiliary_files(folder: Path) -> list[Path]:
    """Those files directly in ``folder`` that `copy_auxiliary_files` copies, by name."""
    return [path for path in sorted(folder.iterdir()) if _belongs(path)]


def _copy_files(source: Path, target: Path, without: tuple[str, ...] = ()) -> None:
    for path in auxiliary_files(source):
        if path.name not in without:
            shutil.copyfile(path, target / path.name)


def _belongs(path: Path) -> bool:
    if path.name.startswith(".") or not path.is_file() or path.stat().st_size > _LARGEST:
        return False
    if path.name == EVALUATION_NAME:
        return False
    if path.name.endswith(".index.json"):  # lists the shards of weights that are not copied
        return False
    return path.suffix in _SUFFIXES or path.name.split(".")[0].upper() in _LICENCES
