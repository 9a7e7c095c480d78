"""The engines that can be measured, one file each: to add one, add a file with an `ENGINES` table.

An engine lives in a worker process of its own, so that no library's threads, allocator or flags
touch another's. `prepare` runs in a process before that, so that what an export needs counts
neither as load time nor as memory.
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparsebert.errors import InputError


class Engine(ABC):
    """Something that runs a BERT. Files of engines import their library inside the methods."""

    prepares = False
    """Whether `prepare` does anything (a process is started for it only then)."""

    @abstractmethod
    def missing(self) -> str | None:
        """Why this engine cannot run here, with what to do; None if it can."""

    def prepare(self, model: Path, workspace: Path) -> Path:
        """Make of a Hugging Face or packed folder what this engine loads; returns where it is."""
        return model

    def start(self) -> None:  # noqa: B027 - an engine may have nothing to import
        """Import the library, so that load time is the model's alone."""

    @abstractmethod
    def load(self, folder: Path, threads: int) -> None:
        """Load what `prepare` returned, set up the way this engine's own guide says is fastest."""

    @abstractmethod
    def run(self, ids: npt.NDArray[np.int64]) -> None:
        """One forward pass over token ids ``[batch, tokens]``, to the end of the model's head."""

    @abstractmethod
    def about(self) -> dict[str, str]:
        """After loading: versions and the kernel or settings in use, for the result's header."""


@cache
def known_engines() -> dict[str, Callable[[], Engine]]:
    """Every engine's name and how to make one."""
    found: dict[str, Callable[[], Engine]] = {}
    for module in pkgutil.iter_modules(__path__):
        found.update(import_module(f"{__name__}.{module.name}").ENGINES)
    return found


def parse_engines(text: str) -> list[str]:
    """Read ``"sparsebert-fp32,torch"``; InputError for an engine that nobody has heard of."""
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in known_engines():
            known = ", ".join(sorted(known_engines()))
            raise InputError(f"there is no engine '{name}': choose from {known}.")
    return names
