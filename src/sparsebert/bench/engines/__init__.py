"""The engines that can be measured, one file each: to add one, add a file with an `ENGINES` table.

An engine lives in a worker process of its own, so that no library's threads, allocator or flags
touch another's. `prepare` runs in a process before that, so that what an export needs counts
neither as load time nor as memory.
"""

from __future__ import annotations

import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.errors import InputError

if TYPE_CHECKING:
    from sparsebert.bench.worker import Batch


class Setup(ABC):
    """What is known of an engine before it runs: is it here, what does it load, who runs it."""

    precision = "fp32"
    """What its linear layers multiply: engines are compared within a precision, and overall."""
    ragged = False
    """Whether it takes batches as they come; the others get theirs sorted by length and padded."""
    prepares = True
    """Whether `prepare` does anything (a process is started for it only then)."""
    keeps = True
    """Whether what `prepare` makes serves the next run of the same model too (``--cache``)."""

    @abstractmethod
    def missing(self) -> str | None:
        """Why this engine cannot run here, with what to do; None if it can."""

    def prepare(self, model: Path, workspace: Path) -> Path:
        """Make of a Hugging Face or packed folder what this engine loads; returns where it is.

        What it makes gets a folder of its own in ``workspace``, which other engines use as well.
        """
        return model

    def command(self, name: str) -> list[str]:
        """The command line of a worker that loads and runs this engine."""
        return worker_command(name)

    def environment(self, threads: int) -> dict[str, str]:
        """Variables that its library reads once, when it starts."""
        return {}


class Engine(Setup):
    """An engine in this Python. Files of engines import their library inside the methods."""

    def start(self) -> None:
        """Import the library, so that load time is the model's alone."""

    @abstractmethod
    def load(self, folder: Path, threads: int) -> None:
        """Load what `prepare` returned, set up the way this engine's own guide says is fastest."""

    @abstractmethod
    def run(self, batch: Batch) -> Any:
        """One forward pass: the head's logits, or the last hidden states of a model without one."""

    @abstractmethod
    def about(self) -> dict[str, str]:
        """After loading: "version" and "settings" (kernels in use), for the result's header."""


def worker_command(name: str) -> list[str]:
    """The command line of a worker in this Python, which can prepare any engine."""
    return [sys.executable, "-m", "sparsebert.bench.worker", name]


def not_installed(*libraries: str) -> str | None:
    """The reason of an engine that needs ``libraries``, naming the first that is not there."""
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
    """Read ``"sparsebert-fp32,torch"``; InputError for an engine that nobody has heard of."""
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in known_engines():
            known = ", ".join(sorted(known_engines()))
            raise InputError(f"there is no engine '{name}': choose from {known}.")
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
