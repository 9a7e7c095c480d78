"""The engines that can be measured, one file each: to add one, add a file with an `ENGINES` table.

An engine lives in a worker process of its own, so that no library's threads, allocator or flags
affect another's. `prepare` runs in an earlier process, so that what an export needs counts neither
as load time nor as memory.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from sparsebert.bench.worker import Setup
from sparsebert.checkpoint import open_checkpoint, staged_folder, write_config
from sparsebert.errors import InputError
from sparsebert.exporting.onnx import ONNX_NAME, write_onnx
from sparsebert.packing import is_packed, unpack


def not_installed(*libraries: str) -> str | None:
    """Why an engine that needs ``libraries`` cannot run: the first that is not installed."""
    for library in libraries:
        if find_spec(library) is None:
            return f"{library} is not installed: pip install 'sparsebert[bench]'"
    return None


@cache
def known_engines() -> dict[str, Callable[[], Setup]]:
    """Every engine's name and how to make one."""
    found: dict[str, Callable[[], Setup]] = {}
    for module in pkgutil.iter_modules(__path__):
        found.update(getattr(import_module(f"{__name__}.{module.name}"), "ENGINES", {}))
    return found


def parse_engines(text: str) -> list[str]:
    """Read ``"sparsebert-fp32,torch"``; InputError for an unknown engine."""
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in known_engines():
            raise InputError(f"there is no engine '{name}': `sparsebert bench --help` lists them.")
    return names


# Ours, and the peers whose libraries a user is likely to have.
_USUAL = (
    "sparsebert-int8",
    "sparsebert-fp32",
    "onnxruntime-int8",
    "onnxruntime-fp32",
    "openvino-int8",
    "openvino-fp32",
    "torch",
    "torch-compile",
    "ctranslate2-int8",
)


def default_engines() -> list[str]:
    """Our engines and every usual peer that is installed."""
    known = known_engines()
    return [name for name in _USUAL if name in known and known[name]().missing() is None]


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """``folder``, made by ``make`` unless it exists; it appears only once it is complete."""
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
    """A folder with the fp32 ``model.onnx``, for any batch and length, and the model's config."""

    def make(folder: Path) -> None:
        source = dense_folder(model, workspace)
        config = open_checkpoint(source).config
        write_onnx(source, config, folder / ONNX_NAME)
        write_config(folder, config.raw)

    return once(workspace / "onnx", make)
