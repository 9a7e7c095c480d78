"""Resolve a model: a folder, or a model id on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sparsebert.errors import CheckpointError, printable, reading

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_REVISION = re.compile(r"\w[\w./-]*", re.ASCII)
_WANTED = [
    "*.json",
    "*.safetensors",
    "*.txt",
    "*.model",
    "artifact.metadata",
    "README.md",
    "LICENSE*",
]
_PICKLES = ["pytorch_model*.bin", "*/pytorch_model.bin", "sparse_linear.pt", "colbert_linear.pt"]
_OTHER_ENGINES = ["onnx/*", "openvino/*", "coreml/*", "tf/*", "flax/*"]


def resolve_model(model: str | Path, *, pickles: bool = False, **download: Any) -> Path:
    """The folder of a model; a hub id is downloaded into the hub's cache first.

    ``OWNER/NAME@REVISION`` is the model at a branch, a tag or a commit, as in the hub's own paths
    (`huggingface_hub.HfFileSystem`). Old pickled weights are not downloaded unless ``pickles`` is
    set; only `convert` sets it. ``download`` are further arguments of
    `huggingface_hub.snapshot_download`, such as ``token``. Raises CheckpointError if there is no
    such folder and no such model on the hub, or the hub cannot be reached.
    """
    if not str(model):
        raise CheckpointError("no model was named: pass a folder or a model id on the hub.")
    path = Path(model)
    with reading(model, CheckpointError):
        if path.is_dir():
            return path
        if path.exists():
            raise CheckpointError(f"{model} is a file: pass the model's folder.")
    repository, at, revision = ("", "", "") if isinstance(model, Path) else model.partition("@")
    if HUB_ID.fullmatch(repository) is None or (at and _REVISION.fullmatch(revision) is None):
        raise CheckpointError(f"{model} is not a folder.")
    if at:
        if download.get("revision") not in (None, revision):
            raise CheckpointError(f"{model}: another revision, {download['revision']}, is given.")
        download["revision"] = revision
    return _download(repository, pickles, download)


def source_name(model: str | Path) -> str:
    """How a lineage names its source: the hub id, or the folder's own name.

    Never the whole path, which would publish the layout of the author's disk. Bytes of a name that
    are not UTF-8 become escapes, as records are UTF-8.
    """
    path = Path(model)
    return printable(path.resolve().name if path.is_dir() else str(model))


def _download(model: str, pickles: bool, arguments: dict[str, Any]) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"{model} is not a folder, and downloading it from the hub needs huggingface_hub: "
            "pip install huggingface_hub."
        ) from error
    patterns = _WANTED + _PICKLES if pickles else _WANTED
    try:
        folder = snapshot_download(
            model, allow_patterns=patterns, ignore_patterns=_OTHER_ENGINES, **arguments
        )
    except Exception as error:  # the library's own errors share no base class
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{model} is not a folder, and could not be downloaded from the hub as a model either: "
            f"{reason}"
        ) from error
    return Path(folder)
