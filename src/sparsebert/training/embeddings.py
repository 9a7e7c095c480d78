"""Which word embeddings train: all of them, those of the words that occur, or none.

The table of word embeddings is a large part of a small encoder (half of MiniLM), and of its rows a
step touches only those of its tokens. The optimiser goes over all of them all the same, and weight
decay shrinks words that the training examples never have. So let only rows that are used be a
parameter: steps are cheaper, and every other row comes out as it went in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel


def embeddings_patch(
    which: str, ids: npt.NDArray[np.integer[Any]]
) -> UsedEmbeddings | FrozenEmbeddings | None:
    """The patch for the option ``embeddings``; None where all of them train.

    ``ids`` are the token ids of the training examples, int ``[tokens]``.
    """
    if which == "used":
        return UsedEmbeddings(ids)
    return FrozenEmbeddings() if which == "frozen" else None


class UsedEmbeddings:
    """A model patch under which only the embeddings of some token ids train.

    ``ids`` are all that occur in the training examples, int ``[tokens]``; the padding token and 0,
    with which batches are padded, are among them whether they occur or not. Other tokens may be
    read in evaluation mode alone.
    """

    def __init__(self, ids: npt.NDArray[np.integer[Any]]) -> None:
        self._ids = np.unique(ids).astype(np.int64)
        self._model: Any = None
        self._table: nn.Embedding | None = None

    def attach(self, model: PreTrainedModel) -> None:
        """Replace the table by its trained rows; ``state_dict`` still gives the whole."""
        self.detach()
        table: nn.Embedding = model.get_input_embeddings()
        model.set_input_embeddings(_UsedRows(table, self._ids))
        self._model, self._table = model, table

    def detach(self) -> None:
        """Give the model its table back, with the rows as they are trained now."""
        if self._table is not None:
            rows = self._model.get_input_embeddings().table()
            with torch.no_grad():  # in the same memory, unless the model moved to another device
                self._table.to(rows).weight.copy_(rows)
            self._model.set_input_embeddings(self._table)
        self._model = self._table = None


class FrozenEmbeddings:
    """A model patch under which no word embedding trains."""

    def __init__(self) -> None:
        self._weight: nn.Parameter | None = None

    def attach(self, model: PreTrainedModel) -> None:
        """Take the word embeddings out of training, and so out of the optimiser."""
        self.detach()
        self._weight = model.get_input_embeddings().weight.requires_grad_(False)

    def detach(self) -> None:
        """Let them train again."""
        if self._weight is not None:
            self._weight.requires_grad_(True)
        self._weight = None


class _UsedRows(nn.Embedding):
    """An embedding whose ``weight`` is some rows of a table, float ``[used, features]``.

    The table lies outside of the parameters and is brought up to date when someone looks at it.
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
        """The whole table, brought up to date."""
        return self._whole.index_copy_(0, self._used, self.weight)

    # The three that torch's own modules override to hold something else than their parameters.
    # Buffers would move by themselves, but processes send each other theirs in every step.

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
                f"{prefix}weight is {list(stored.shape)} and should be {list(self._whole.shape)}"
            )
        else:
            with torch.no_grad():
                self._whole.copy_(stored)
                self.weight.copy_(self._whole[self._used])
