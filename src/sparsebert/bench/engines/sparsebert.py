"""Our own engine, on a packed folder: what a server would load."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparsebert import __version__
from sparsebert.bench.engines import Engine
from sparsebert.inference import load
from sparsebert.packing import VALUE_TYPES, is_packed, open_packed, pack, unpack

if TYPE_CHECKING:
    from sparsebert.inference import Model


class PackedEngine(Engine):
    """The native engine on weights packed as one dtype."""

    prepares = True

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._model: Model | None = None

    def missing(self) -> str | None:
        return None

    def prepare(self, model: Path, workspace: Path) -> Path:
        if is_packed(model):
            if open_packed(model).dtype == self._dtype:
                return model
            unpacked = workspace / f"unpacked-for-{self._dtype}"
            unpack(model, unpacked)
            model = unpacked
        packed = workspace / f"packed-{self._dtype}"
        pack(model, packed, dtype=self._dtype)
        return packed

    def load(self, folder: Path, threads: int) -> None:
        self._model = load(folder, threads=threads)

    def run(self, ids: npt.NDArray[np.int64]) -> None:
        assert self._model is not None
        self._model.forward(ids.tolist())

    def about(self) -> dict[str, str]:
        assert self._model is not None
        return {
            "version": f"sparsebert {__version__}",
            "settings": f"{self._model.instruction_set}, {self._dtype} weights",
        }


ENGINES: dict[str, Callable[[], Engine]] = {
    f"sparsebert-{dtype}": partial(PackedEngine, dtype) for dtype in VALUE_TYPES
}
