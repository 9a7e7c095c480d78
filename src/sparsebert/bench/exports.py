"""What several engines load, made once: a dense folder, and the model as ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sparsebert.checkpoint import open_checkpoint, staged_folder, write_config
from sparsebert.exporting.onnx import ONNX_NAME, write_onnx
from sparsebert.packing import is_packed, unpack


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """``folder``, made by ``make`` unless it is there; half of one is never seen."""
    if not folder.exists():
        with staged_folder(folder, force=False) as staging:
            make(staging)
    return folder


def dense_folder(model: Path, workspace: Path) -> Path:
    """The model as a folder that transformers loads: itself, unless it is packed."""
    if not is_packed(model):
        return model
    folder = workspace / "unpacked"
    if not folder.exists():
        unpack(model, folder)
    return folder


def onnx_folder(model: Path, workspace: Path) -> Path:
    """A folder with the fp32 ``model.onnx``, any batch and length, and the model's config."""

    def make(folder: Path) -> None:
        source = dense_folder(model, workspace)
        config = open_checkpoint(source).config
        write_onnx(source, config, folder / ONNX_NAME)
        write_config(folder, config.raw)

    return once(workspace / "onnx", make)
