"""Batches of like length, in an order that depends on seed and epoch alone.

Padding is computed like any other token, so a batch should hold rows of like length. transformers
has a sampler for that (`LengthGroupedSampler`), which draws from the global random state: a run
resumed in the middle of an epoch would then see other batches than the run it continues. It also
goes from long to short rows over and over; here the batches of like length come in random order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

_BATCHES_IN_POOL = 50  # rows are sorted within a random pool of this many batches


class LengthBuckets(Sampler[int]):
    """Yields every row of an epoch once; each ``rows_per_step`` of them in turn are of like length.

    The step with the longest row comes first, so that memory runs out at once or never.
    """

    def __init__(self, lengths: npt.NDArray[np.integer], rows_per_step: int, seed: int) -> None:
        self._lengths = lengths
        self._rows_per_step = rows_per_step
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def order(self) -> npt.NDArray[np.int64]:
        """The rows of the current epoch, int64 ``[rows]``."""
        random = np.random.default_rng((self._seed, self._epoch))
        shuffled = random.permutation(len(self._lengths))
        pool = self._rows_per_step * _BATCHES_IN_POOL
        pools = [shuffled[start : start + pool] for start in range(0, len(shuffled), pool)]
        by_length = np.concatenate(
            [rows[np.argsort(-self._lengths[rows], kind="stable")] for rows in pools]
        )
        whole = len(by_length) // self._rows_per_step
        steps = by_length[: whole * self._rows_per_step].reshape(whole, self._rows_per_step)
        # Rows that do not fill a step stay last, where they are a step of their own.
        rest = by_length[whole * self._rows_per_step :]
        if whole:
            steps = steps[random.permutation(whole)]
            longest = int(np.argmax(self._lengths[steps].max(axis=1)))
            steps[[0, longest]] = steps[[longest, 0]]
        return np.concatenate((steps.reshape(-1), rest)).astype(np.int64)
