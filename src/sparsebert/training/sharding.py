"""Models that are cut over processes: FSDP2, as `accelerate launch --use_fsdp` starts it.

Each parameter is a DTensor, of which a process holds some rows under the parameter's own name; so
a mask is cut alike and holds on each process's rows. FSDP1 flattens parameters into one, in which a
mask no longer has a place, and is refused.

    accelerate launch --use_fsdp --fsdp_version 2 -m sparsebert finetune sparse/ task/ ...
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from sparsebert.errors import TrainingError
from sparsebert.patterns import BoolMatrix
from sparsebert.training.options import FinetuneOptions
from sparsebert.training.upstream_options import UpstreamOptions


def here(values: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process holds, sharing its memory: all of an ordinary one."""
    if not isinstance(values, DTensor):
        return values
    with torch.no_grad():
        return values.to_local()


def here_of(mask: BoolMatrix, parameter: torch.Tensor) -> torch.Tensor:
    """The part of a parameter's mask that belongs to the part that this process holds."""
    whole = torch.from_numpy(mask)
    if not isinstance(parameter, DTensor):
        return whole
    cut = distribute_tensor(
        whole.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )
    return cut.to_local()


def prepare_sharding(accelerator: Accelerator, model: PreTrainedModel) -> None:
    """See that a model can be cut and that its checkpoints hold it whole, if FSDP was asked for.

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
    return any(isinstance(each, DTensor) for each in model.parameters())


def whole_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A sharded model's tensors, whole and on the CPU. Every process must ask for them."""
    state: dict[str, Any] = model.state_dict()
    return {
        name: (each.full_tensor() if isinstance(each, DTensor) else each).cpu()
        for name, each in state.items()
    }


def check_shardable(options: FinetuneOptions | UpstreamOptions) -> None:
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
