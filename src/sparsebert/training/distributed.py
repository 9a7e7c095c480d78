"""Several processes that train one model, as `torchrun` and `accelerate launch` start them.

    torchrun --nproc-per-node 2 -m sparsebert finetune sparse/ task/ --task sst2 --data data/sst2
    accelerate launch --use_fsdp --fsdp_version 2 -m sparsebert finetune sparse/ task/ ...

All of them read, and go through the same steps; what is written, scored and reported is the main
one's (rank 0). Without a launcher there is one process, and nothing here does anything. Importing
this costs next to nothing: torch is imported where it is used.

Under FSDP2 each parameter is a DTensor, of which a process holds some rows under the parameter's
own name; so a mask is sharded alike. FSDP1 flattens parameters into one, to which a mask no longer
fits, and is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from sparsebert.errors import TrainingError
from sparsebert.progress import Progress, silent

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch.nn.parallel import DistributedDataParallel
    from transformers import PreTrainedModel

    from sparsebert.patterns import BoolMatrix
    from sparsebert.training.objective import Objective


Result = TypeVar("Result")

# Others wait while the main process scores or runs a teacher. One that dies is seen all the same:
# its launcher ends the rest.
_LONGEST_WAIT = timedelta(days=7)


def processes() -> int:
    """How many processes train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0")) if processes() > 1 else 0


def is_main() -> bool:
    """Whether this is the one that writes and reports."""
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


def local_tensor(values: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process holds, sharing its memory: all of an ordinary one."""
    import torch
    from torch.distributed.tensor import DTensor

    if not isinstance(values, DTensor):
        return values
    with torch.no_grad():
        return values.to_local()


def local_mask(mask: BoolMatrix, parameter: torch.Tensor) -> torch.Tensor:
    """The part of a parameter's mask that belongs to the part that this process holds."""
    import torch
    from torch.distributed.tensor import DTensor, distribute_tensor

    whole = torch.from_numpy(mask)
    if not isinstance(parameter, DTensor):
        return whole
    sharded = distribute_tensor(
        whole.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )
    return sharded.to_local()


def prepare_sharding(accelerator: Accelerator, model: PreTrainedModel) -> None:
    """See that a model can be sharded and its checkpoints are whole, if FSDP is on.

    Raises TrainingError for FSDP1.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None:
        return
    if plugin.fsdp_version != 2:
        raise TrainingError(
            "FSDP version 1 flattens weights, so that their masks lose their place: use version 2 "
            "(accelerate launch --use_fsdp --fsdp_version 2)."
        )
    plugin.state_dict_config = plugin.optim_state_dict_config = None  # those of another type
    plugin.set_state_dict_type("FULL_STATE_DICT")
    if plugin.transformer_cls_names_to_wrap is None:
        # accelerate cuts off the word embeddings by themselves, and not once more within another.
        words = model.get_input_embeddings()
        around = {type(each).__name__ for each in model.modules() if words in each.children()}
        kinds = set(model._no_split_modules or ())
        plugin.transformer_cls_names_to_wrap = sorted(kinds - around)


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether processes hold parts of the model's parameters."""
    from torch.distributed.tensor import DTensor

    return any(isinstance(each, DTensor) for each in model.parameters())


def full_state_dict(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A sharded model's tensors, whole and on the CPU. A collective: every process must call it."""
    from torch.distributed.tensor import DTensor

    state: dict[str, Any] = model.state_dict()
    return {
        name: (each.full_tensor() if isinstance(each, DTensor) else each).cpu()
        for name, each in state.items()
    }


def check_shardable(options: object) -> None:
    """TrainingError for options that look at a whole weight, of which a process has a part."""
    for name, why in (
        ("method", "chooses masks by whole weights"),
        ("embeddings", "trains some rows of a table"),
        ("quantize", "rounds whole rows of weights"),
        ("early_stopping", "scores a model that is whole"),
    ):
        value = getattr(options, name, None)
        if value not in (None, 0, "lock", "train", "frozen"):
            raise TrainingError(
                f"{name} {value} {why} and cannot be used with FSDP: use torchrun alone."
            )


def parallel_loss(
    model: PreTrainedModel | DistributedDataParallel,
    objective: Objective,
    batch: dict[str, torch.Tensor],
    examples_in_step: int,
) -> torch.Tensor:
    """The objective's loss, of a model that is wrapped or not.

    torch's DistributedDataParallel learns from what its forward pass returns which gradients to
    wait for, and so must see all of a loss: also of one that needs hidden states, or sends some
    tokens alone through a head. So the whole loss is computed inside of its forward pass.
    """
    from torch.nn.parallel import DistributedDataParallel

    if not isinstance(model, DistributedDataParallel):
        return objective.loss(model, batch, examples_in_step)
    inner: Any = model.module
    instead = vars(inner).get("forward")

    def restore() -> None:
        if instead is None:
            vars(inner).pop("forward", None)
        else:
            inner.forward = instead

    def forward(_: torch.Tensor) -> torch.Tensor:
        restore()  # the objective calls the model's own
        return objective.loss(inner, batch, examples_in_step)

    inner.forward = forward
    try:
        loss: torch.Tensor = model(batch["attention_mask"])
    finally:
        restore()
    return loss
