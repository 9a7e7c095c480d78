"""Our own engine, on a packed folder: what a server would load."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert import __version__
from sparsebert.bench.engines import dense_folder
from sparsebert.bench.worker import Batch, Engine
from sparsebert.inference import load
from sparsebert.packing import VALUE_TYPES, is_packed, open_packed, pack

if TYPE_CHECKING:
    from sparsebert.inference import Model


class PackedEngine(Engine):
    """The native engine on weights packed as one dtype."""

    ragged = True
    cacheable = False  # packing is quick, and another version of sparsebert packs otherwise

    def __init__(self, dtype: str, *, sparse: bool = True, compute: str | None = None) -> None:
        self.precision = compute or dtype
        self._dtype = dtype
        self._sparse = sparse
        self._compute = compute
        self._model: Model | None = None

    def missing(self) -> str | None:
        return None

    def prepare(self, model: Path, workspace: Path) -> Path:
        if self._sparse and is_packed(model) and open_packed(model).dtype == self._dtype:
            return model
        packed = workspace / f"packed-{self._dtype}{'' if self._sparse else '-dense'}"
        if not packed.exists():  # another precision may be computed of the same
            source = dense_folder(model, workspace)
            pack(source, packed, dtype=self._dtype, compress=self._sparse)
        return packed

    def load(self, folder: Path, threads: int) -> None:
        self._model = load(folder, threads=threads, compute=self._compute)

    def run(self, batch: Batch) -> Any:
        assert self._model is not None
        sequences: Any = batch.sequences
        return self._model.forward(sequences)

    def about(self) -> dict[str, str]:
        assert self._model is not None
        kernel = f", {self._model.kernel}" if self._model.kernel else ""
        zeros = "" if self._sparse else ", zeros stored and multiplied"
        return {
            "version": f"sparsebert {__version__}",
            "settings": f"{self._model.instruction_set}, {self._dtype} weights{zeros}{kernel}",
        }


ENGINES: dict[str, Callable[[], Engine]] = {
    **{f"sparsebert-{dtype}": partial(PackedEngine, dtype) for dtype in VALUE_TYPES},
    **{
        f"sparsebert-dense-{dtype}": partial(PackedEngine, dtype, sparse=False)
        for dtype in ("fp32", "int8")
    },
    "sparsebert-bf16": partial(PackedEngine, "fp32", compute="bf16"),
    "sparsebert-dense-bf16": partial(PackedEngine, "fp32", sparse=False, compute="bf16"),
}
