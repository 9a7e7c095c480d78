"""How the rows of an optimiser step are cut into batches, and spread over processes.

When memory runs out: half the batch, twice the accumulation, the same training. That is the
reference model's own troubleshooting advice, done for the user. Likewise several processes share
the rows that one would take. An optimiser step still sees the same examples in the same order, so
only memory and speed change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sparsebert.errors import TrainingError


@dataclass(frozen=True)
class BatchPlan:
    """``batch_size`` rows go through the model at once, ``accumulation`` times for each step.

    They do so in each of ``processes``.
    """

    batch_size: int
    accumulation: int
    processes: int = 1

    @property
    def rows_per_step(self) -> int:
        """Rows that one optimiser step sees."""
        return self.batch_size * self.accumulation * self.processes

    def steps(self, rows: int, epochs: float) -> int:
        """Optimiser steps of a run; each epoch's last step may be short."""
        return math.ceil(-(-rows // self.rows_per_step) * epochs)

    def warmup_steps(self, rows: int, epochs: float, ratio: float) -> int:
        """In how many of a run's optimiser steps the learning rate rises."""
        return math.ceil(self.steps(rows, epochs) * ratio)

    def spread(self, processes: int) -> BatchPlan:
        """The same steps by so many processes, with batches as large as they were at most.

        Raises TrainingError if a step's rows cannot be divided among them evenly.
        """
        if processes == self.processes:
            return self
        share, rest = divmod(self.rows_per_step, processes)
        if rest:
            raise TrainingError(
                f"the {self.rows_per_step} rows of a step (batch_size times gradient_accumulation) "
                f"cannot be divided evenly among {processes} processes: give a batch_size that can."
            )
        return self._cut(share, self.batch_size, processes)

    def halved(self) -> BatchPlan | None:
        """At most half the batch for the same step; None if the batch is a single row already.

        An odd batch cannot be halved evenly: the largest size up to its half that divides the step
        is taken.
        """
        if self.batch_size == 1:
            return None
        share = self.batch_size * self.accumulation
        return self._cut(share, self.batch_size // 2, self.processes)

    @staticmethod
    def _cut(rows: int, most: int, processes: int) -> BatchPlan:
        """A process's ``rows`` of a step in batches of one size, ``most`` at most."""
        size = max(size for size in range(1, min(most, rows) + 1) if rows % size == 0)
        return BatchPlan(size, rows // size, processes)


def is_out_of_memory(error: BaseException) -> bool:
    """True if an error says that memory ran out, on the CPU or on an accelerator."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, Exception):
        return False
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)
