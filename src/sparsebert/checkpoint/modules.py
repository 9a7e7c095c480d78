"""The modules of a sentence-transformers folder: what modules.json lists, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparsebert.checkpoint.json_files import inner_folder, read_json
from sparsebert.errors import CheckpointError

MODULES_NAME = "modules.json"


@dataclass(frozen=True)
class Module:
    """``kind`` is its class, without the module for sentence-transformers' own."""

    kind: str
    folder: Path


def transformer_folder(folder: Path) -> Path:
    """Where config.json and the weights are: ``folder``, or the sub-folder modules.json names."""
    for module in read_modules(folder):
        if module.kind == "Transformer":
            return module.folder
    return folder


def module_folders(folder: Path) -> list[Path]:
    """The sub-folders of a sentence-transformers folder that exist, without the transformer's."""
    return [
        module.folder
        for module in read_modules(folder)
        if module.kind != "Transformer" and module.folder != folder and module.folder.is_dir()
    ]


def read_modules(folder: Path) -> list[Module]:
    """The modules that modules.json lists, in order; none where there is no such file."""
    where = folder / MODULES_NAME
    if not where.is_file():
        return []
    listed = read_json(where)
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise CheckpointError(f"{where} must hold a list of modules.")
    modules = []
    for entry in listed:
        kind = entry.get("type")
        if not isinstance(kind, str) or not kind:
            raise CheckpointError(f"{where}: a module has no 'type'.")
        if kind.startswith("sentence_transformers."):
            kind = kind.rsplit(".", 1)[-1]
        modules.append(Module(kind, inner_folder(folder, entry.get("path", ""), where)))
    return modules
