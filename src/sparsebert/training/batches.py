"""How the examples of an epoch become batches: size, order, and share of each process.

When memory runs out: half the batch, twice the accumulation, the same training. That is the
reference model's own troubleshooting advice, done for the user. Likewise several processes share
the examples that one would take. An optimiser step still sees the same examples in the same order,
so only memory and speed change.

Padding is computed like any other token, so a batch should have examples of like length.
transformers has a sampler for that (`LengthGroupedSampler`), which draws from the global random
state: a run resumed in the middle of an epoch would then see other batches than the run it
continues. It also goes from long to short over and over; here the batches of like length come in
random order, which depends on seed and epoch alone.
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
    """``batch_size`` examples go through the model at once, ``accumulation`` times a step.

    They do so in each of ``processes``.
    """

    batch_size: int
    accumulation: int
    processes: int = 1

    @property
    def examples_per_step(self) -> int:
        """Rows that one optimiser step sees."""
        return self.batch_size * self.accumulation * self.processes

    def steps(self, examples: int, epochs: float) -> int:
        """Optimiser steps of a run; each epoch's last step may be short."""
        return math.ceil(-(-examples // self.examples_per_step) * epochs)

    def warmup_steps(self, examples: int, epochs: float, ratio: float) -> int:
        """In how many of a run's optimiser steps the learning rate rises."""
        return math.ceil(self.steps(examples, epochs) * ratio)

    def spread(self, processes: int) -> BatchPlan:
        """The same steps by so many processes, with batches as large as they were at most.

        Raises TrainingError if a step's examples cannot be divided among them evenly.
        """
        if processes == self.processes:
            return self
        share, rest = divmod(self.examples_per_step, processes)
        if rest:
            raise TrainingError(
                f"the {self.examples_per_step} rows of a step (batch_size times "
                f"gradient_accumulation) cannot be divided evenly among {processes} processes: "
                "give a batch_size that can."
            )
        return self._cut(share, self.batch_size, processes)

    def halved(self) -> BatchPlan | None:
        """At most half the batch for the same step; None if the batch is a single example already.

        An odd batch cannot be halved evenly: the largest size up to its half that divides the step
        is taken.
        """
        if self.batch_size == 1:
            return None
        share = self.batch_size * self.accumulation
        return self._cut(share, self.batch_size // 2, self.processes)

    @staticmethod
    def _cut(examples: int, most: int, processes: int) -> BatchPlan:
        """A process's ``examples`` of a step in batches of one size, ``most`` at most."""
        size = max(size for size in range(1, min(most, examples) + 1) if examples % size == 0)
        return BatchPlan(size, examples // size, processes)


def is_out_of_memory(error: BaseException) -> bool:
    """True if an error says that memory ran out, on the CPU or on an accelerator."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, Exception):
        return False
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)


_BATCHES_IN_POOL = 50  # examples are sorted within a random pool of this many batches


class LengthBuckets(Sampler[int]):
    """Yields the index of every example of an epoch once, a step's worth of like length at a time.

    The step with the longest example comes first, so that memory runs out at once or never. Where
    the examples of a step should have nothing in common, ``apart`` has what each is made of, int64
    ``[examples, parts]``.
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
        """Choose the epoch whose order the next iteration gives."""
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
        # Examples that do not fill a step stay last, where they are a step of their own.
        rest = by_length[whole * self._examples_per_step :]
        if whole:
            steps = steps[random.permutation(whole)]
            longest = int(np.argmax(self._lengths[steps].max(axis=1)))
            steps[[0, longest]] = steps[[longest, 0]]
        order = np.concatenate((steps.reshape(-1), rest)).astype(np.int64)
        if self._apart is None:
            return order
        return kept_apart(order, self._apart, self._examples_per_step)


_LOOK_AHEAD = 50  # steps among whose examples one is looked for that fits


def kept_apart(
    order: npt.NDArray[np.int64], parts: npt.NDArray[np.int64], examples_per_step: int
) -> npt.NDArray[np.int64]:
    """``order`` changed so that the examples of a step have no part in common, where possible.

    An example that has one in common with an earlier one of the step waits for the next step, ahead
    of others.
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
    """The batches of process ``rank`` in an epoch: indices in the order of ``buckets``."""

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
