"""Several processes that train one model, as `torchrun` and `accelerate launch` start them.

    torchrun --nproc-per-node 2 -m sparsebert finetune sparse/ task/ --task sst2 --data data/sst2

All of them read, and go through the same steps; what is written, scored and told is the main one's
(rank 0). Without a launcher there is one process, and nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from sparsebert.progress import Progress, silent

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")

# Others wait while the main process scores or asks a teacher. One that dies is seen all the same:
# its launcher ends the rest.
_LONGEST_WAIT = timedelta(days=7)


def processes() -> int:
    """How many processes train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0")) if processes() > 1 else 0


def is_main() -> bool:
    """Whether this is the one that writes and tells."""
    return rank() == 0


def join() -> None:
    """Meet the other processes, if there are any; again, nothing happens."""
    if processes() == 1:
        return
    import torch
    from accelerate import PartialState

    if not torch.distributed.is_initialized():
        PartialState(cpu=not torch.cuda.is_available(), timeout=_LONGEST_WAIT)


def main_only(progress: Progress) -> Progress:
    """The progress in the main process, and none in the others."""
    return progress if is_main() else silent


def from_main(function: Callable[[], Result]) -> Result:
    """What ``function`` gives when the main process calls it; all wait for that.

    Where it fails the main process raises the error, and the others end without a word.
    """
    if processes() == 1:
        return function()
    import torch

    found: list[Any] = [None, False]
    try:
        if is_main():
            found = [function(), True]
    finally:  # also when it failed: the others wait
        torch.distributed.broadcast_object_list(found, src=0)
    if not found[1]:
        raise SystemExit(1)
    result: Result = found[0]
    return result


@contextmanager
def main_first() -> Iterator[None]:
    """The main process goes through the block before the others do."""
    if not is_main():
        wait_for_all()
    yield
    if is_main():
        wait_for_all()


def wait_for_all() -> None:
    """Go on when all processes have come here."""
    if processes() > 1:
        import torch

        torch.distributed.barrier()


def any_of(flag: bool) -> bool:
    """Whether it is so in any process."""
    return total(int(flag)) > 0


def total(number: int) -> int:
    """The sum over all processes."""
    if processes() == 1:
        return number
    import torch
    from accelerate import PartialState

    # On the device that the processes exchange gradients on: not every backend has two.
    count = torch.tensor(number, device=PartialState().device)
    torch.distributed.all_reduce(count)
    return int(count)


def average(values: torch.Tensor) -> torch.Tensor:
    """The mean over all processes."""
    if processes() == 1:
        return values
    import torch

    mean = values.clone()
    torch.distributed.all_reduce(mean)
    return mean.div_(processes())
