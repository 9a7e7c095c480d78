"""Several processes that train one model, started by `torchrun` or `accelerate launch`.

    torchrun --nproc-per-node 2 -m sparsebert finetune sparse/ task/ --task sst2 --data data/sst2
    accelerate launch --use_fsdp --fsdp_version 2 -m sparsebert finetune sparse/ task/ ...

All of them read the data and go through the same steps; only the main process (rank 0) writes,
scores and reports. Without a launcher there is one process, and nothing here does anything.
Importing this module is cheap: torch is imported only where it is used.

Under FSDP2 each parameter is a DTensor of which each process holds some rows, under the parameter's
own name, so a mask is sharded in the same way. FSDP1 flattens parameters into one, which masks do
not fit, and is refused.
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

# The others wait while the main process scores or runs a teacher. If a process dies, the launcher
# still ends the rest.
_LONGEST_WAIT = timedelta(days=7)


def processes() -> int:
    """How many processes train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0")) if processes() > 1 else 0


def is_main() -> bool:
    """Whether this is the process that writes and reports."""
    return rank() == 0


def join() -> None:
    """Join the process group, if there are several processes; later calls do nothing."""
    if processes() == 1:
        return
    import torch
    from accelerate import PartialState

    if not torch.distributed.is_initialized():
        PartialState(cpu=not torch.cuda.is_available(), timeout=_LONGEST_WAIT)


def main_only(progress: Progress) -> Progress:
    """``progress`` in the main process, and silence in the others."""
    return progress if is_main() else silent


def from_main(function: Callable[[], Result]) -> Result:
    """The result of ``function`` in the main process, in all of them; the others wait for it.

    If it fails, the main process raises the error, and the others exit silently.
    """
    if processes() == 1:
        return function()
    import torch

    found: list[Any] = [None, False]
    try:
        if is_main():
            found = [function(), True]
    finally:  # also on failure: the others are waiting
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
    """Wait until all processes have reached this point."""
    if processes() > 1:
        import torch

        torch.distributed.barrier()


def any_of(flag: bool) -> bool:
    """Whether ``flag`` is true in any process."""
    return total(int(flag)) > 0


def total(number: int) -> int:
    """The sum over all processes."""
    if processes() == 1:
        return number
    import torch
    from accelerate import PartialState

    # On the device used to exchange gradients, because not every backend supports two.
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
    """The part of a tensor that this process holds, sharing its memory; all of it if unsharded."""
    import torch
    from torch.distributed.tensor import DTensor

    if not isinstance(values, DTensor):
        return values
    with torch.no_grad():
        return values.to_local()


def local_mask(mask: BoolMatrix, parameter: torch.Tensor) -> torch.Tensor:
    """The part of a mask that matches this process's part of the parameter."""
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
    """If FSDP is on, set it up for the model, with checkpoints that are whole.

    Raises TrainingError for FSDP1.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None:
        return
    if plugin.fsdp_version != 2:
        raise TrainingError(
            "FSDP version 1 flattens weights, so masks no longer fit them: use version 2 "
            "(accelerate launch --use_fsdp --fsdp_version 2)."
        )
    plugin.state_dict_config = plugin.optim_state_dict_config = None  # set for another type
    plugin.set_state_dict_type("FULL_STATE_DICT")
    if plugin.transformer_cls_names_to_wrap is None:
        # accelerate shards the word embeddings by themselves, and must not shard them a second time
        # as part of a module around them.
        words = model.get_input_embeddings()
        around = {type(each).__name__ for each in model.modules() if words in each.children()}
        kinds = set(model._no_split_modules or ())
        plugin.transformer_cls_names_to_wrap = sorted(kinds - around)


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether each process holds only parts of the model's parameters."""
    from torch.distributed.tensor import DTensor

    return any(isinstance(each, DTensor) for each in model.parameters())


def full_state_dict(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A sharded model's tensors, whole and on the CPU. Collective: every process must call it."""
    from torch.distributed.tensor import DTensor

    state: dict[str, Any] = model.state_dict()
    return {
        name: (each.full_tensor() if isinstance(each, DTensor) else each).cpu()
        for name, each in state.items()
    }


def check_shardable(options: object) -> None:
    """TrainingError for options that need whole weights, of which a process has only parts."""
    for name, why in (
        ("method", "chooses masks from whole weights"),
        ("embeddings", "trains only some rows of a table"),
        ("quantize", "rounds whole rows of weights"),
        ("early_stopping", "scores the whole model"),
    ):
        value = getattr(options, name, None)
        if value not in (None, 0, "lock", "train", "frozen"):
            raise TrainingError(
                f"{name} {value} {why}, so it cannot be used with FSDP: use torchrun alone."
            )


def parallel_loss(
    model: PreTrainedModel | DistributedDataParallel,
    objective: Objective,
    batch: dict[str, torch.Tensor],
    examples_in_step: int,
) -> torch.Tensor:
    """The objective's loss for a model that may be wrapped in DistributedDataParallel.

    DistributedDataParallel works out from the outputs of its forward pass which gradients to wait
    for, so these must cover the whole loss, even one that uses hidden states or sends only some
    tokens through a head. The loss is therefore computed inside that forward pass.
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
        restore()  # because the objective calls the model's own forward
        return objective.loss(inner, batch, examples_in_step)

    inner.forward = forward
    try:
        loss: torch.Tensor = model(batch["attention_mask"])
    finally:
        restore()
    return loss
