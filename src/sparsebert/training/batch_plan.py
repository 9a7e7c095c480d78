"""What to do when memory runs out: half the batch, twice the accumulation, the same training.

The reference model's own troubleshooting advice, done for the user. An optimiser step still sees
the same examples in the same order, so only memory and speed change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class BatchPlan:
    """``batch_size`` rows go through the model at once, ``accumulation`` times for each step."""

    batch_size: int
    accumulation: int

    @property
    def rows_per_step(self) -> int:
        """Rows that one optimiser step sees."""
        return self.batch_size * self.accumulation

    def steps(self, rows: int, epochs: float) -> int:
        """Optimiser steps of a run; each epoch's last step may be short."""
        return math.ceil(-(-rows // self.rows_per_step) * epochs)

    def warmup_steps(self, rows: int, epochs: float, ratio: float) -> int:
        """In how many of a run's optimiser steps the learning rate rises."""
        return math.ceil(self.steps(rows, epochs) * ratio)

    def halved(self) -> BatchPlan | None:
        """At most half the batch for the same step; None if the batch is a single row already.

        An odd batch cannot be halved evenly: the largest size up to its half that divides the step
        is taken.
        """
        if self.batch_size == 1:
            return None
        smaller = max(
            size for size in range(1, self.batch_size // 2 + 1) if self.rows_per_step % size == 0
        )
        return BatchPlan(smaller, self.rows_per_step // smaller)


def is_out_of_memory(error: BaseException) -> bool:
    """True if an error says that memory ran out, on the CPU or on an accelerator."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, Exception):
        return False
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)
