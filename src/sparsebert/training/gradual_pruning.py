"""The gradual pruner: masks that change while the model trains, from dense to complete N:M masks.

Between two updates the current masks are locked: a pruned weight is +0.0 and its gradient zero. The
value that it had when it was pruned is remembered beside the model, and if a later update keeps the
weight again, it returns with that value, as in the papers (see `sparsebert.pruning.gradual`), where
masked weights stay unchanged. It returns without momentum: when a weight is pruned, its first
moment (Adam's exp_avg, SGD's momentum_buffer) is set to zero, and with a zero gradient it stays
zero. Adam's second moment is kept: it is the scale of a step, not a direction, and without it the
first steps after the return would be too long by a factor of (1 - beta1) / sqrt(1 - beta2), about
three.

Masks, remembered weights and saliencies are saved with each of the Trainer's checkpoints, so a
resumed run gives bit-identical results.

Learning-rate rewinding: pruning during training must not use up the learning rate's decay. After
pruning, a model recovers best at the learning rates it was trained with, not at the small ones that
a run ends on (Renda et al., 2020, arXiv 2003.02389). Prune Once for All (Zafrir et al., 2021, arXiv
2111.05754) therefore rewinds the learning-rate schedule to where pruning began at every mask
update, and lets it run its course once the masks are final. With a sparsity schedule from t0 to t1
and an update every k steps, step t of T takes the rate of step c(t) of an ordinary schedule
(warm-up to t0, then linearly to zero) of T' = T - (t1 - t0) steps:

    c(t) = t                    before t0
    c(t) = t0 + (t - t0) mod k  from t0 to t1
    c(t) = t - (t1 - t0)        from t1

    rate(c) = c / t0 before t0, (T' - c) / (T' - t0) from there
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.hooks import RemovableHandle

from sparsebert.checkpoint import open_checkpoint
from sparsebert.checkpoint.architecture import PARTS
from sparsebert.checkpoint.dtypes import Array
from sparsebert.checkpoint.masks import MASKS_NAME, StoredMasks
from sparsebert.checkpoint.tensors import TensorFiles, TensorSpec
from sparsebert.checkpoint.writing import write_tensors
from sparsebert.errors import TrainingError
from sparsebert.patterns import BoolMatrix, Pattern, is_whole
from sparsebert.pruning.criteria import accumulate_saliency
from sparsebert.pruning.gradual import SparsitySchedule, forced_mask
from sparsebert.pruning.methods import METHODS, Needs
from sparsebert.training.distributed import average
from sparsebert.training.locked_masks import LockedMasks, LockedMasksCallback

PRUNER_STATE_NAME = "mask_evolution.safetensors"
_MOMENTA = ("exp_avg", "momentum_buffer")  # what torch's optimisers call their first moments


@dataclass(frozen=True)
class GradualPruning:
    """What a run prunes: ``layers`` (shapes by canonical name), from dense to ``pattern``."""

    method: str
    pattern: Pattern
    schedule: SparsitySchedule
    layers: Mapping[str, tuple[int, int]]


class GradualPruner(LockedMasks):
    """The masks of layers that are being pruned, and of layers that are already sparse.

    The masks in ``locked`` are those of the latter and never change. The others begin dense and are
    complete once `update` has been called for the last step of the schedule.
    """

    def __init__(self, pruning: GradualPruning, locked: Mapping[str, BoolMatrix]) -> None:
        dense = {name: np.ones(shape, bool) for name, shape in pruning.layers.items()}
        super().__init__({**locked, **dense})
        self.pruning = pruning
        self._by_saliency = METHODS[pruning.method].needs is Needs.GRADIENTS
        # By layer name, float32 of the weight's shape; all empty once the masks are final.
        self._remembered: dict[str, torch.Tensor] = {}  # pruned weights' old values, 0 where kept
        self._saliency: dict[str, torch.Tensor] = {}
        self._gradients: dict[str, torch.Tensor] = {}  # of the step so far, before masking
        self._hooks: list[RemovableHandle] = []
        self._final = False

    def attach(self, model: torch.nn.Module) -> None:
        super().attach(model)
        if self._final:
            return
        for values in self._kinds().values():
            for name in self.pruning.layers:
                parameter = self._locked[name].parameter
                known = values[name] if name in values else torch.zeros(parameter.shape)
                values[name] = known.to(parameter.device)
        if self._by_saliency:
            for name in self.pruning.layers:
                parameter = self._locked[name].parameter
                hook = parameter.register_hook(partial(self._see, name))  # type: ignore[no-untyped-call]
                self._hooks.append(hook)

    def detach(self) -> None:
        super().detach()
        while self._hooks:
            self._hooks.pop().remove()
        self._gradients.clear()

    @torch.no_grad()
    def accumulate(self) -> None:
        """Update the saliencies with a step's gradients, summed over all of its batches."""
        for name, gradient in self._gradients.items():
            weight = self._locked[name].parameter + self._remembered[name]
            # Each process has seen only the gradient of its own examples.
            accumulate_saliency(self._saliency[name], weight, average(gradient))
        self._gradients.clear()

    @torch.no_grad()
    def update(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Update the masks if the schedule says so after ``step`` optimiser steps."""
        schedule = self.pruning.schedule
        if not schedule.updates(step):
            return
        for name in self.pruning.layers:
            locked, remembered = self._locked[name], self._remembered[name]
            weight = locked.parameter + remembered  # one of the two is 0 everywhere
            scores = self._saliency[name] if self._by_saliency else weight.abs()
            mask = forced_mask(scores.cpu().numpy(), self.pruning.pattern, schedule.share(step))
            self.masks[name] = mask
            locked.set(mask)
            locked.parameter.copy_(weight)
            locked.zero(locked.parameter)
            remembered.copy_(weight.masked_fill(torch.from_numpy(mask).to(weight.device), 0.0))
            state = optimizer.state.get(locked.parameter, {})
            for momentum in (state.get(key) for key in _MOMENTA):
                if momentum is not None:
                    locked.zero(momentum)
        if step == schedule.end:
            self._final = True
            for values in (self._remembered, self._saliency, self._gradients):
                values.clear()

    def check_whole(self) -> None:
        """TrainingError, naming a layer, unless every mask is a complete N:M mask."""
        for name in self.pruning.layers:
            if not is_whole(self.masks[name], self.pruning.pattern):
                raise TrainingError(
                    f"'{name}' did not reach the pattern {self.pruning.pattern}. The result is not "
                    "kept; please report this."
                )

    def save(self, folder: Path) -> None:
        """Write everything that a resumed run needs into a checkpoint folder.

        This is masks.safetensors and, until the masks are final, mask_evolution.safetensors with
        the remembered weights and saliencies, which is written first.
        """
        if not self._final:
            arrays: dict[str, Array] = {}
            for kind, values in self._kinds().items():
                arrays |= {f"{name}.{kind}": each.cpu().numpy() for name, each in values.items()}
            specs = [TensorSpec(name, "F32", array.shape) for name, array in arrays.items()]
            write_tensors(folder / PRUNER_STATE_NAME, specs, arrays.values(), {})
        super().save(folder)

    def restore(self, folder: Path) -> None:
        """Restore what `save` wrote; call this before `attach`.

        Raises CheckpointError if a file is damaged, TrainingError if it belongs to another run.
        """
        checkpoint = open_checkpoint(folder)
        stored = StoredMasks(checkpoint)
        layers = {layer.name: layer for layer in checkpoint.linear_layers(PARTS)}
        for name in self.masks:
            if name not in stored:
                raise _foreign(folder / MASKS_NAME, name)
            self.masks[name] = stored.read(layers[name])
        path = folder / PRUNER_STATE_NAME
        self._final = not path.is_file()
        if self._final:
            self.check_whole()
            return
        tensors = TensorFiles([path])
        for kind, values in self._kinds().items():
            for name, shape in self.pruning.layers.items():
                spec = TensorSpec(f"{name}.{kind}", "F32", shape)
                if spec.name not in tensors or tensors.spec(spec.name) != spec:
                    raise _foreign(path, spec.name)
                values[name] = torch.tensor(tensors[spec.name])

    def _kinds(self) -> dict[str, dict[str, torch.Tensor]]:
        """What is kept for each layer that is being pruned, by its name in a file."""
        kinds = {"remembered": self._remembered}
        return {**kinds, "saliency": self._saliency} if self._by_saliency else kinds

    def _see(self, name: str, gradient: torch.Tensor) -> None:
        """Accumulate a weight's gradient as it arrives, before it is masked."""
        # Autograd owns the gradient, so it is kept as it is and added to out of place. Because it
        # is kept, autograd copies it into parameter.grad, which the mask zeroes in place.
        if not self._final:
            known = self._gradients.get(name)
            self._gradients[name] = gradient if known is None else known + gradient


def _foreign(path: Path, name: str) -> TrainingError:
    return TrainingError(
        f"{path} has no '{name}' that fits this run: remove {path.parent.parent} to start over."
    )


class GradualPrunerCallback(LockedMasksCallback):
    """Prunes during a Trainer's run and saves the masks with each of its checkpoints.

    The run fails with TrainingError if, at its end, a pruned weight is not zero or a mask is not
    complete.
    """

    masks: GradualPruner

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: torch.nn.Module, **kwargs: Any
    ) -> None:
        assert state.max_steps == self.masks.pruning.schedule.steps
        super().on_train_begin(args, state, control, model=model, **kwargs)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.masks.accumulate()

    def on_step_end(
        self,
        args: Any,
        state: Any,
        control: Any,
        *,
        optimizer: torch.optim.Optimizer,
        **kwargs: Any,
    ) -> None:
        self.masks.update(state.global_step, optimizer)

    def on_train_end(
        self, args: Any, state: Any, control: Any, *, model: torch.nn.Module, **kwargs: Any
    ) -> None:
        super().on_train_end(args, state, control, model=model, **kwargs)
        if state.global_step >= self.masks.pruning.schedule.end:  # not if interrupted
            self.masks.check_whole()


def rewound_rate(schedule: SparsitySchedule, step: int) -> float:
    """The learning rate of the optimiser step after ``step`` steps, as a share of its peak."""
    length = schedule.end - schedule.start
    if step < schedule.start:
        return step / schedule.start
    if step < schedule.end:
        step = schedule.start + (step - schedule.start) % schedule.interval
    else:
        step -= length
    steps = schedule.steps - length
    return max(0.0, (steps - step) / (steps - schedule.start))
