"""Keep every pruned weight at exactly 0.0 while the rest trains.

Zeros can be revived in three ways: by a gradient (the optimiser moves the weight), by optimiser
state (momentum of earlier gradients) and by later arithmetic (such as averaging of weights). So the
gradient of a pruned weight is set to zero as it arrives in the backward pass, before clipping
measures it and before the optimiser sees it, and the weight is set to +0.0 after each optimiser
step in any case.

Zeroing is an in-place bitwise AND with all ones where a weight is kept and all zeros where it is
pruned. Multiplication would turn a negative number into -0.0, which is another bit pattern, and
leave NaN as it is; torch's masked_fill_ takes six times as long on a CPU, which adds up to a tenth
of a training step.

It works with any Trainer of transformers or sentence-transformers:

    masks = LockedMasks(read_masks(open_checkpoint("sparse/")))
    trainer.add_callback(LockedMasksCallback(masks))

and in your own loop, with `LockedMasks.apply` after each step of the optimiser:

    masks.attach(model)
    for batch in batches:
        model(**batch).loss.backward()
        optimizer.step()
        masks.apply()
        optimizer.zero_grad()
    masks.verify(model)
    model.save_pretrained("out/")  # masks.safetensors too
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel, TrainerCallback

from sparsebert.checkpoint.masks import write_masks
from sparsebert.errors import TrainingError
from sparsebert.patterns import BoolMatrix
from sparsebert.torch_models import canonical_parameters, transformers_model
from sparsebert.training.distributed import local_mask, local_tensor

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the size of a weight in bytes


class _Locked:
    """One parameter, locked by its mask."""

    def __init__(self, parameter: torch.nn.Parameter, mask: BoolMatrix) -> None:
        self.parameter = parameter
        # As wide as a weight: -1 (all bits set) for a kept weight, 0 for a pruned one.
        self._bits = torch.empty(
            local_tensor(parameter).shape,
            dtype=_INTEGERS[parameter.element_size()],
            device=parameter.device,
        )
        self.set(mask)
        self._hook: RemovableHandle | None = None
        if parameter.requires_grad:  # frozen ones (under an adapter) have no gradient
            hook = parameter.register_post_accumulate_grad_hook
            self._hook = hook(self._arrived)  # type: ignore[no-untyped-call]

    def detach(self) -> None:
        """Unlock the parameter."""
        if self._hook is not None:
            self._hook.remove()

    def set(self, mask: BoolMatrix) -> None:
        """Replace the mask."""
        self._bits.copy_(local_mask(mask, self.parameter))
        self._bits.neg_()

    @torch.no_grad()
    def zero(self, values: torch.Tensor) -> None:
        """Set the pruned elements of a tensor of the weight's shape to +0.0, such as a gradient."""
        values = local_tensor(values)
        integer = _INTEGERS[values.element_size()]
        self._bits = self._bits.to(values.device, integer)  # a model may be moved, or cast
        values.view(integer).bitwise_and_(self._bits)

    def _arrived(self, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        self.zero(parameter.grad)


class LockedMasks:
    """The masks of a model's pruned weights; once attached to the model, they lock these at zero.

    ``masks`` maps canonical weight names to bool matrices of the weights' shapes, True where a
    weight is kept. A kept weight that happens to be 0.0 is trained like any other.
    """

    def __init__(self, masks: Mapping[str, BoolMatrix]) -> None:
        self.masks = dict(masks)
        self._locked: dict[str, _Locked] = {}

    def attach(self, model: torch.nn.Module) -> None:
        """Lock the pruned weights of a transformers model, found by their canonical names, at zero.

        The model may be wrapped (`sparsebert.torch_models.transformers_model`): in a
        SentenceTransformer, by PEFT, or in a module of your own. From then on, its
        ``save_pretrained`` also writes the masks, even after `detach`. Raises TrainingError if the
        model lacks the parameter of a mask or has one of another shape.
        """
        self.detach()
        parameters = canonical_parameters(model)
        for name, mask in self.masks.items():
            parameter = parameters.get(name)
            if parameter is None:
                raise TrainingError(f"there is a mask for '{name}', which the model does not have.")
            if tuple(parameter.shape) != mask.shape:
                raise TrainingError(
                    f"the mask of '{name}' has shape {list(mask.shape)}, but the weight has "
                    f"{list(parameter.shape)}: the masks belong to a different model."
                )
            self._locked[name] = _Locked(parameter, mask)
        inner = transformers_model(model)
        inner.save_pretrained = _SavePretrained(inner, self)
        self.apply()

    def detach(self) -> None:
        """Unlock the parameters."""
        for locked in self._locked.values():
            locked.detach()
        self._locked.clear()

    def apply(self) -> None:
        """Set every pruned weight to +0.0."""
        for locked in self._locked.values():
            locked.zero(locked.parameter)

    @torch.no_grad()
    def verify(self, model: torch.nn.Module) -> None:
        """Raise TrainingError, naming the layers, unless every pruned weight is +0.0 to the bit."""
        parameters = canonical_parameters(model)
        broken = []
        for name, mask in self.masks.items():
            parameter = parameters[name]
            pruned = local_mask(~mask, parameter).to(parameter.device)
            values = local_tensor(parameter).masked_select(pruned)
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
        """Write masks.safetensors into ``folder``."""
        write_masks(folder, self.masks)


class _SavePretrained:
    """A model's ``save_pretrained``, which every Trainer calls, with the masks saved as well."""

    def __init__(self, model: PreTrainedModel, masks: LockedMasks) -> None:
        self._model, self._masks = model, masks

    def __call__(
        self, save_directory: str | Path, is_main_process: bool = True, **settings: Any
    ) -> None:
        save = type(self._model).save_pretrained
        save(self._model, save_directory, is_main_process=is_main_process, **settings)
        if is_main_process:
            self._masks.save(Path(save_directory))


class LockedMasksCallback(TrainerCallback):  # type: ignore[misc]
    """Locks the masks during a Trainer's run, and saves them with each model that it saves.

    Raises TrainingError at the end of the run if a pruned weight is not zero.
    """

    def __init__(self, masks: LockedMasks) -> None:
        self.masks = masks

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: torch.nn.Module, **kwargs: Any
    ) -> None:
        self.masks.attach(model)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.masks.apply()

    def on_train_end(
        self, args: Any, state: Any, control: Any, *, model: torch.nn.Module, **kwargs: Any
    ) -> None:
        self.masks.detach()
        self.masks.verify(model)
