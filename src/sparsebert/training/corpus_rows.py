"""Batches of a tokenised corpus, with tokens masked where a masked-LM head is to predict them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sparsebert.evaluation.predictors import padded_batch
from sparsebert.tasks.tokens import TokenRows
from sparsebert.training.upstream_objective import NOT_MASKED


@dataclass(frozen=True)
class Masking:
    """Which tokens are masked, as in BERT (Devlin et al., 2019, section 3.1).

    Of each row's tokens a share ``masked``, but at least one: 80 % become ``mask_id``, 10 % any
    token of the vocabulary, 10 % stay. ``special`` are never masked.
    """

    masked: float
    mask_id: int
    special: tuple[int, ...]
    vocabulary: int

    def mask(
        self, ids: npt.NDArray[np.int32], random: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ids to read and ids to predict (`NOT_MASKED` elsewhere), int64 ``[tokens]`` each."""
        seen = ids.astype(np.int64)
        labels = np.full_like(seen, NOT_MASKED)
        places = np.flatnonzero(~np.isin(ids, self.special))
        if len(places) == 0:
            return seen, labels
        count = max(1, round(self.masked * len(places)))
        chosen = random.permutation(places)[:count]
        labels[chosen] = seen[chosen]
        kind = random.random(count)
        seen[chosen[kind < 0.8]] = self.mask_id
        other = chosen[kind >= 0.9]
        seen[other] = random.integers(self.vocabulary, size=len(other))
        return seen, labels


class CorpusRows:
    """Token rows to train on; what is masked depends on seed, epoch and row alone."""

    def __init__(self, rows: TokenRows, masking: Masking | None, seed: int) -> None:
        self.rows = rows
        self._masking = masking
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose masks the next batches get."""
        self._epoch = epoch

    def batch(self, chosen: Sequence[int]) -> dict[str, torch.Tensor]:
        """A padded batch of some rows: the Trainer's data collator."""
        batch = padded_batch(self.rows, np.asarray(chosen))
        batch["rows"] = torch.tensor(chosen)
        if self._masking is not None:
            batch["labels"] = torch.full_like(batch["input_ids"], NOT_MASKED)
            for place, row in enumerate(chosen):
                ids, _ = self.rows.row(row)
                random = np.random.default_rng((self._seed, self._epoch, row))
                seen, labels = self._masking.mask(ids, random)
                batch["input_ids"][place, : len(ids)] = torch.from_numpy(seen)
                batch["labels"][place, : len(ids)] = torch.from_numpy(labels)
        return batch
