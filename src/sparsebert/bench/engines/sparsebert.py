"""Our own engine, on a packed folder: what a server would load, and what it would compute.

For a SPLADE model, that is sparse embeddings, including their pooling. Other engines return the
logits of each token and leave the pooling to their caller.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert import __version__
from sparsebert.bench.engines import dense_folder
from sparsebert.bench.worker import Batch, Engine
from sparsebert.checkpoint.sparse_routes import SparsePooling
from sparsebert.inference import load
from sparsebert.inference.sequences import Tokens
from sparsebert.inference.sparse import sparse_embeddings
from sparsebert.packing import VALUE_TYPES, is_packed, open_packed, pack

if TYPE_CHECKING:
    from sparsebert.inference import Model


class PackedEngine(Engine):
    """The native engine on weights packed as one dtype."""

    ragged = True
    cacheable = False  # packing is quick, and another version of sparsebert may pack differently

    def __init__(self, dtype: str, *, sparse: bool = True, compute: str | None = None) -> None:
        self.precision = compute or ("int8" if dtype == "int8" else "fp32")
        self._dtype = dtype
        self._sparse = sparse
        self._compute = compute
        self._model: Model | None = None
        self._pooling: SparsePooling | None = None

    def missing(self) -> str | None:
        return None

    def prepare(self, model: Path, workspace: Path) -> Path:
        if self._sparse and is_packed(model) and open_packed(model).dtype == self._dtype:
            return model
        packed = workspace / f"packed-{self._dtype}{'' if self._sparse else '-dense'}"
        if not packed.exists():  # it may be shared with an engine of another precision
            source = dense_folder(model, workspace)
            pack(source, packed, dtype=self._dtype, compress=self._sparse)
        return packed

    def load(self, folder: Path, threads: int) -> None:
        self._model = load(folder, threads=threads, compute=self._compute)
        route = self._model.sparse_route("document")
        if self._model.embedding_kind == "sparse" and isinstance(route, SparsePooling):
            self._pooling = route

    def run(self, batch: Batch) -> Any:
        assert self._model is not None
        sequences: Any = batch.sequences
        if self._pooling is None:
            return self._model.forward(sequences)
        tokens = [Tokens(ids.astype(np.int32), np.zeros(len(ids), np.int32)) for ids in sequences]
        return sparse_embeddings(self._model.encoder, self._pooling, tokens, len(tokens))

    def about(self) -> dict[str, str]:
        assert self._model is not None
        computed = f"{self._model.instruction_set}, {self._dtype} weights"
        kernel = f", {self._model.kernel}" if self._model.kernel else ""
        zeros = "" if self._sparse else ", zeros stored and multiplied"
        pooled = ", pooled to sparse embeddings" if self._pooling else ""
        return {
            "version": f"sparsebert {__version__}",
            "settings": f"{computed}{zeros}{kernel}{pooled}",
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
