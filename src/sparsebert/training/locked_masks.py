"""Keep every pruned weight at exactly 0.0 while the rest trains.

Zeros come back to life in three ways: through a gradient (the optimiser moves the weight), through
optimiser state (momentum of a gradient from before) and through arithmetic after the fact (weight
decay, averaging). So the gradient of a pruned weight is set to zero as it arrives in the backward
pass, before clipping measures it and before the optimiser sees it, and the weight is set to +0.0
after each optimiser step whatever happened. Setting, not multiplying: a negative number times zero
is -0.0, which is another bit pattern.

Usable with any transformers Trainer:

    trainer.add_callback(LockedMasksCallback(LockedMasks(read_masks(open_checkpoint("sparse/")))))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle
from transformers import (
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from sparsebert.checkpoint.architecture import canonical
from sparsebert.checkpoint.masks import write_masks
from sparsebert.errors import TrainingError
from sparsebert.patterns import BoolMatrix


@dataclass
class _Locked:
    parameter: torch.nn.Parameter
    pruned: torch.Tensor  # bool, on the parameter's device
    hook: RemovableHandle


class LockedMasks:
    """The masks of a model's pruned weights and, once attached, their hold on its parameters.

    ``masks`` maps a canonical weight name to a bool matrix of the weight's shape, True where the
    weight is kept. A kept weight that happens to be 0.0 trains like any other.
    """

    def __init__(self, masks: Mapping[str, BoolMatrix]) -> None:
        self.masks = dict(masks)
        self._locked: dict[str, _Locked] = {}

    def attach(self, model: torch.nn.Module) -> None:
        """Lock the model's parameters, found by name with or without the ``bert.`` prefix.

        Raises TrainingError if a mask has no parameter, or one of another shape.
        """
        self.detach()
        parameters = {canonical(name): each for name, each in model.named_parameters()}
        for name, mask in self.masks.items():
            parameter = parameters.get(name)
            if parameter is None:
                raise TrainingError(f"there is a mask for '{name}', which the model does not have.")
            if tuple(parameter.shape) != mask.shape:
                raise TrainingError(
                    f"the mask of '{name}' is {list(mask.shape)} and its weight is "
                    f"{list(parameter.shape)}: they do not belong together."
                )
            pruned = torch.from_numpy(~mask).to(parameter.device)
            masked = self._gradient_hook(name, pruned)
            hook = parameter.register_hook(masked)  # type: ignore[no-untyped-call]
            self._locked[name] = _Locked(parameter, pruned, hook)
        self.apply()

    def detach(self) -> None:
        """Let go of the parameters."""
        for locked in self._locked.values():
            locked.hook.remove()
        self._locked.clear()

    @torch.no_grad()
    def apply(self) -> None:
        """Set every pruned weight to +0.0."""
        for locked in self._locked.values():
            locked.parameter.masked_fill_(locked.pruned, 0.0)

    @torch.no_grad()
    def verify(self, model: torch.nn.Module) -> None:
        """TrainingError, naming the layers, unless every pruned weight is +0.0, bit for bit."""
        parameters = {canonical(name): each for name, each in model.named_parameters()}
        broken = []
        for name, mask in self.masks.items():
            pruned = torch.from_numpy(~mask).to(parameters[name].device)
            values = parameters[name].masked_select(pruned)
            revived = int(torch.count_nonzero((values != 0) | torch.signbit(values)))
            if revived:
                broken.append(f"{name} ({revived} of {values.numel()})")
        if broken:
            raise TrainingError(
                f"pruned weights are no longer zero in {len(broken)} layers: "
                f"{', '.join(broken[:3])}{', ...' if len(broken) > 3 else ''}. The result is not "
                "kept; please report this."
            )

    def save(self, folder: Path) -> None:
        """Write masks.safetensors into a folder."""
        write_masks(folder, self.masks)

    def _gradient_hook(self, name: str, pruned: torch.Tensor) -> Any:
        """What stands in for the gradient of weight ``name`` as it arrives."""

        def hook(gradient: torch.Tensor) -> torch.Tensor:
            return gradient.masked_fill(pruned, 0.0)

        return hook


class LockedMasksCallback(TrainerCallback):  # type: ignore[misc]
    """Holds the masks through a Trainer's run, saves them with each of its checkpoints.

    The run fails with TrainingError if a pruned weight is not zero at its end.
    """

    def __init__(self, masks: LockedMasks) -> None:
        self.masks = masks

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **kwargs: Any,
    ) -> None:
        assert model is not None
        self.masks.attach(model)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.masks.apply()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.masks.save(Path(args.output_dir or ".") / f"checkpoint-{state.global_step}")

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **kwargs: Any,
    ) -> None:
        assert model is not None
        self.masks.detach()
        self.masks.verify(model)
