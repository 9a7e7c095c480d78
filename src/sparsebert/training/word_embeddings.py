"""Which word embeddings are trained: all of them, those of words that occur, or none.

The table of word embeddings is a large part of a small encoder (half of MiniLM), and a step uses
only the rows of its own tokens. Even so, the optimiser goes over all rows, and weight decay shrinks
words that never occur in the training examples. If only the rows that occur are a parameter, steps
are cheaper, and every other row stays unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel


@contextmanager
def used_embeddings(model: PreTrainedModel, ids: npt.NDArray[np.integer[Any]]) -> Iterator[None]:
    """Inside, train only the embeddings of some token ids, and restore the whole table afterwards.

    ``ids`` are all that occur in the training examples, int ``[tokens]``. The padding token and 0,
    with which batches are padded, are always included. Other tokens may only be read in evaluation
    mode. ``state_dict`` still returns the whole table.
    """
    table: Any = model.get_input_embeddings()
    used = _UsedRows(table, np.unique(ids).astype(np.int64))
    model.set_input_embeddings(used)
    try:
        yield
    finally:
        rows = used.table()
        with torch.no_grad():  # in the same memory, unless the model moved to another device
            table.to(rows).weight.copy_(rows)
        model.set_input_embeddings(table)


@contextmanager
def frozen_embeddings(model: PreTrainedModel) -> Iterator[None]:
    """Inside, exclude the word embeddings from training, and thus from the optimiser."""
    weight: Any = model.get_input_embeddings().weight
    weight.requires_grad_(False)
    try:
        yield
    finally:
        weight.requires_grad_(True)


class _UsedRows(nn.Embedding):
    """An embedding whose ``weight`` holds some rows of a table, float ``[used, features]``.

    The whole table is not a parameter; it is updated from ``weight`` when it is read.
    """

    def __init__(self, table: nn.Embedding, ids: npt.NDArray[np.int64]) -> None:
        whole = table.weight.detach()
        padding = table.padding_idx
        ids = np.union1d(ids, [0] if padding is None else [0, padding])
        used = torch.from_numpy(ids).to(whole.device)
        super().__init__(
            len(used),
            table.embedding_dim,
            padding_idx=None if padding is None else int(np.searchsorted(ids, padding)),
            _weight=whole[used],
        )
        self.train(table.training)
        row_of = torch.full((len(whole),), -1, device=whole.device)
        row_of[used] = torch.arange(len(used), device=whole.device)
        self._whole, self._used, self._row_of = whole, used, row_of

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        if self.training:
            return super().forward(self._row_of[ids])
        return functional.embedding(ids, self.table())

    @torch.no_grad()
    def table(self) -> torch.Tensor:
        """The whole table, with the current ``weight`` in it."""
        return self._whole.index_copy_(0, self._used, self.weight)

    # These are the methods that torch's own modules override to hold more than parameters. Buffers
    # would be moved automatically, but DistributedDataParallel broadcasts buffers in every step.

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> _UsedRows:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._whole, self._used, self._row_of = map(fn, (self._whole, self._used, self._row_of))
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.table()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        stored = state_dict.get(prefix + "weight")
        if stored is None:
            missing_keys.append(prefix + "weight")
        elif stored.shape != self._whole.shape:
            error_msgs.append(
                f"{prefix}weight has shape {list(stored.shape)}, not {list(self._whole.shape)}"
            )
        else:
            with torch.no_grad():
                self._whole.copy_(stored)
                self.weight.copy_(self._whole[self._used])
