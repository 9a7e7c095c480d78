"""Which rows each of several processes takes, so that together they take those that one would.

A step's rows are cut into batches, which go to the processes in turn. Where an epoch's last step
has too few of them the last ones get an empty batch: every process goes through the model equally
often, because they meet in each backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler

from sparsebert.training.batch_plan import BatchPlan
from sparsebert.training.length_buckets import LengthBuckets


class RankBatches(Sampler[list[int]]):
    """The batches of process ``rank`` in an epoch: rows in the order of ``buckets``."""

    def __init__(self, buckets: LengthBuckets, plan: BatchPlan, rank: int) -> None:
        self._buckets = buckets
        self._plan = plan
        self._rank = rank

    def __len__(self) -> int:
        return -(-len(self._buckets) // (self._plan.batch_size * self._plan.processes))

    def __iter__(self) -> Iterator[list[int]]:
        plan = self._plan
        rows = self._buckets.order().tolist()
        together = plan.batch_size * plan.processes
        for start in range(0, len(rows), together):
            mine = start + self._rank * plan.batch_size
            yield rows[mine : min(mine + plan.batch_size, start + together)]
