"""How the examples of an epoch become batches: size, order, and the share of each process.

When memory runs out, the batch is halved and gradients are accumulated twice as often. Likewise,
several processes share the examples that one process would take. An optimiser step still sees the
same examples in the same order, so only memory and speed change.

Padding costs as much as any other token, so a batch should have examples of similar length. The
sampler that transformers has for this (`LengthGroupedSampler`) draws from the global random state,
so a run resumed in the middle of an epoch would see different batches from the run it continues.
It also goes from long to short again and again; here the batches come in random order, which
depends only on seed and epoch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from sparsebert.errors import TrainingError


@dataclass(frozen=True)
class BatchPlan:
    """In each process, ``batch_size`` examples at a time, ``accumulation`` times per step."""

    batch_size: int
    accumulation: int
    processes: int = 1

    @property
    def examples_per_step(self) -> int:
        """Examples in one optimiser step, over all processes."""
        return self.batch_size * self.accumulation * self.processes

    def steps(self, examples: int, epochs: float) -> int:
        """Optimiser steps of a run; each epoch's last step may be short."""
        return math.ceil(-(-examples // self.examples_per_step) * epochs)

    def warmup_steps(self, examples: int, epochs: float, ratio: float) -> int:
        """The number of optimiser steps over which the learning rate rises."""
        return math.ceil(self.steps(examples, epochs) * ratio)

    def spread(self, processes: int) -> BatchPlan:
        """The same steps divided among ``processes``, with batches that are at most as large.

        Raises TrainingError if a step's examples cannot be divided among them evenly.
        """
        if processes == self.processes:
            return self
        share, rest = divmod(self.examples_per_step, processes)
        if rest:
            raise TrainingError(
                f"the {self.examples_per_step} rows of a step (batch_size times "
                f"gradient_accumulation) cannot be divided evenly among {processes} processes: "
                "choose a batch_size that can."
            )
        return self._cut(share, self.batch_size, processes)

    def halved(self) -> BatchPlan | None:
        """The same step in batches of at most half the size; None if the batch is one example.

        An odd size cannot be halved evenly, so this takes the largest size up to half of it that
        divides a process's share of the step.
        """
        if self.batch_size == 1:
            return None
        share = self.batch_size * self.accumulation
        return self._cut(share, self.batch_size // 2, self.processes)

    @staticmethod
    def _cut(examples: int, most: int, processes: int) -> BatchPlan:
        """A process's ``examples`` per step in batches of equal size, at most ``most``."""
        size = max(size for size in range(1, min(most, examples) + 1) if examples % size == 0)
        return BatchPlan(size, examples // size, processes)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on the CPU or on an accelerator."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, Exception):
        return False
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)


_BATCHES_IN_POOL = 50  # examples are sorted within a random pool of this many batches


class LengthBuckets(Sampler[int]):
    """Yields the index of each example of an epoch once; those of a step have similar lengths.

    The step with the longest example comes first, so that memory runs out immediately or never. If
    the examples of a step should have nothing in common, ``apart`` lists the parts of each example
    (int64 ``[examples, parts]``).
    """

    def __init__(
        self,
        lengths: npt.NDArray[np.integer],
        examples_per_step: int,
        seed: int,
        apart: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self._lengths = lengths
        self._apart = apart
        self._examples_per_step = examples_per_step
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration yields."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def order(self) -> npt.NDArray[np.int64]:
        """The indices of the current epoch, int64 ``[examples]``."""
        random = np.random.default_rng((self._seed, self._epoch))
        shuffled = random.permutation(len(self._lengths))
        pool_size = self._examples_per_step * _BATCHES_IN_POOL
        pools = [
            shuffled[start : start + pool_size] for start in range(0, len(shuffled), pool_size)
        ]
        by_length = np.concatenate(
            [pool[np.argsort(-self._lengths[pool], kind="stable")] for pool in pools]
        )
        whole = len(by_length) // self._examples_per_step
        steps = by_length[: whole * self._examples_per_step].reshape(whole, self._examples_per_step)
        # Examples that do not fill a step stay last and form a shorter step.
        rest = by_length[whole * self._examples_per_step :]
        if whole:
            steps = steps[random.permutation(whole)]
            longest = int(np.argmax(self._lengths[steps].max(axis=1)))
            steps[[0, longest]] = steps[[longest, 0]]
        order = np.concatenate((steps.reshape(-1), rest)).astype(np.int64)
        if self._apart is None:
            return order
        return kept_apart(order, self._apart, self._examples_per_step)


_LOOK_AHEAD = 50  # steps; how far ahead to look for an example that fits


def kept_apart(
    order: npt.NDArray[np.int64], parts: npt.NDArray[np.int64], examples_per_step: int
) -> npt.NDArray[np.int64]:
    """``order``, rearranged so that the examples of a step have no part in common, if possible.

    An example that shares a part with an earlier one of its step is moved to the front of the queue
    for the next step.
    """
    waiting = deque(order.tolist())
    placed: list[int] = []
    while waiting:
        step: list[int] = []
        later: list[int] = []
        seen: set[int] = set()
        while (
            waiting
            and len(step) < examples_per_step
            and len(later) < _LOOK_AHEAD * examples_per_step
        ):
            example = waiting.popleft()
            own = parts[example].tolist()
            if seen.isdisjoint(own):
                seen.update(own)
                step.append(example)
            else:
                later.append(example)
        missing = examples_per_step - len(step)
        placed += step + later[:missing]
        waiting.extendleft(reversed(later[missing:]))
    return np.array(placed, np.int64)


class RankBatches(Sampler[list[int]]):
    """An epoch's batches for process ``rank``: indices in the order of ``buckets``."""

    def __init__(self, buckets: LengthBuckets, plan: BatchPlan, rank: int) -> None:
        self._buckets = buckets
        self._plan = plan
        self._rank = rank

    def __len__(self) -> int:
        return -(-len(self._buckets) // (self._plan.batch_size * self._plan.processes))

    def __iter__(self) -> Iterator[list[int]]:
        plan = self._plan
        indices = self._buckets.order().tolist()
        together = plan.batch_size * plan.processes
        for start in range(0, len(indices), together):
            own = start + self._rank * plan.batch_size
            yield indices[own : min(own + plan.batch_size, start + together)]
