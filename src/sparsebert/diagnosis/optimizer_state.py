"""Training checkpoints: momentum of pruned weights, which would revive them.

Adam moves a weight by its first moment even if the gradient is zero (and SGD by its momentum).
A non-zero first moment of a pruned weight therefore means that gradients have reached it, and that
the next step without a lock revives it. Adam's second moment only scales a step and moves nothing
by itself, so it is not checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.checkpoint import MASKS_NAME, PARTS, Checkpoint, open_checkpoint
from sparsebert.checkpoint.architecture import RELATIVE_BIAS
from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.checkpoint.masks import StoredMasks
from sparsebert.diagnosis.report import Check, Finding, Problem, Severity, plural, share
from sparsebert.errors import CheckpointError
from sparsebert.patterns import BoolMatrix, count_broken_groups, detect, mask_from_zeros
from sparsebert.training.checkpoint_folders import WORK_SUFFIX, folder_bytes

if TYPE_CHECKING:
    import torch

GROUP = "leaks"
OPTIMIZER_NAME = "optimizer.pt"
_MOMENTA = ("exp_avg", "momentum_buffer")  # first moments, as torch's optimisers call them

UNREADABLE_CHECKPOINT = Problem(
    "unreadable-checkpoint",
    Severity.ERROR,
    "it may be damaged or half-written: remove that checkpoint and resume from the previous one.",
)
REVIVED_IN_TRAINING = Problem(
    "revived-in-training",
    Severity.ERROR,
    "this training does not lock the zeros: restart it with `sparsebert finetune`, or with "
    "LockedMasksCallback in your own Trainer.",
)
LEAKING_OPTIMIZER = Problem(
    "leaking-optimizer",
    Severity.ERROR,
    "gradients of pruned weights reached the optimiser, and the next step without a lock revives "
    "them: restart or resume the training with `sparsebert finetune`, or with LockedMasksCallback "
    "in your own Trainer, which hold the zeros in spite of it.",
)
UNFINISHED_TRAINING = Problem(
    "unfinished-training",
    Severity.NOTE,
    "continue with the same command and --resume, or remove the folder to free its space.",
)


def check_checkpoints(checkpoints: Sequence[Path], models: Sequence[Path]) -> Iterator[Check]:
    """One check for each checkpoint; one without masks is compared with those of ``models``."""
    if not checkpoints:
        yield Check.of(GROUP, "optimiser state", "no training checkpoints", [])
        return
    for folder in checkpoints:
        yield _check(folder, models)
    works = dict.fromkeys(
        folder.parent for folder in checkpoints if folder.parent.name.endswith(WORK_SUFFIX)
    )
    findings = [
        UNFINISHED_TRAINING.at(
            work,
            f"an unfinished training with {plural(len(kept), 'checkpoint')}, the last one "
            f"{kept[-1].name} ({folder_bytes(work) / 1e6:,.0f} MB in all).",
            count=len(kept),
        )
        for work in works
        if (kept := [folder for folder in checkpoints if folder.parent == work])
    ]
    if works:
        yield Check.of(GROUP, "work folders", plural(len(works), "folder"), findings)


def _check(folder: Path, models: Sequence[Path]) -> Check:
    try:
        checkpoint = open_checkpoint(folder)
        masks, source = _masks(checkpoint, models)
    except CheckpointError as error:
        found = UNREADABLE_CHECKPOINT.at(folder, str(error))
        return Check.of(GROUP, folder.name, "not read", [found])
    broken = _broken_without_mask(folder, checkpoint, masks)
    if not masks and broken is None:
        return Check.of(GROUP, folder.name, "a dense model, which has no pruned weights", [])
    seen = f"{plural(len(masks), 'mask')} ({source})"
    findings = [_revived(folder, checkpoint, masks), broken]
    file = folder / OPTIMIZER_NAME
    if not file.is_file():
        return Check.of(GROUP, folder.name, f"{seen}; it has no {OPTIMIZER_NAME}", findings)
    if find_spec("torch") is None:
        seen += f"; {OPTIMIZER_NAME} was not read, because torch is not installed"
        return Check.of(GROUP, folder.name, seen, findings)
    try:
        momenta = _first_moments(_load(file), checkpoint)
    except CheckpointError as error:
        findings.append(UNREADABLE_CHECKPOINT.at(folder, str(error)))
        return Check.of(GROUP, folder.name, seen, findings)
    if momenta is None:
        seen += f"; {OPTIMIZER_NAME} does not identify its parameters, so it was not checked"
        return Check.of(GROUP, folder.name, seen, findings)
    held = sum(name in momenta for name in masks)
    seen += f", first moments of {held} of these layers"
    findings.append(_leaking(folder, momenta, masks))
    return Check.of(GROUP, folder.name, seen, findings)


def _masks(checkpoint: Checkpoint, models: Sequence[Path]) -> tuple[dict[str, BoolMatrix], str]:
    """The masks of a checkpoint and where they come from; empty for a dense model."""
    own = _stored(checkpoint)
    if own:
        return own, f"its own {MASKS_NAME}"
    for model in models:
        if model != checkpoint.path and (model / MASKS_NAME).is_file():
            stored = _stored(open_checkpoint(model))
            fits = {
                layer.name: stored[layer.name]
                for layer in checkpoint.linear_layers(PARTS)
                if layer.name in stored and stored[layer.name].shape == (layer.rows, layer.columns)
            }
            if fits:
                return fits, f"{MASKS_NAME} of {model}"
    masks = {}
    for layer in checkpoint.linear_layers(PARTS):
        weight = checkpoint.weight(layer.name)
        pattern = detect(weight)
        if pattern is not None:
            masks[layer.name] = mask_from_zeros(weight, pattern)
    return masks, "derived from its zeros"


def _broken_without_mask(
    folder: Path, checkpoint: Checkpoint, masks: dict[str, BoolMatrix]
) -> Finding | None:
    """Layers recorded as pruned that have no mask and too many non-zeros to derive one."""
    pattern = checkpoint.config.recorded_pattern
    layers = [name for name in checkpoint.config.recorded_layers if name not in masks]
    if pattern is None or not layers:
        return None
    counts = {name: count_broken_groups(checkpoint.weight(name), pattern) for name in layers}
    broken = {name: count for name, count in counts.items() if count}
    if not broken:
        return None
    total = sum(broken.values())
    return REVIVED_IN_TRAINING.at(
        folder,
        f"{total:,} groups have more non-zeros than {pattern} allows, in "
        f"{plural(len(broken), 'layer')} without a mask that {CONFIG_NAME} records as pruned.",
        count=total,
        examples=(f"{name}: {plural(count, 'group')}" for name, count in broken.items()),
    )


def _stored(checkpoint: Checkpoint) -> dict[str, BoolMatrix]:
    masks = StoredMasks(checkpoint)
    layers = checkpoint.linear_layers(PARTS)
    return {layer.name: masks.read(layer) for layer in layers if layer.name in masks}


def _revived(folder: Path, checkpoint: Checkpoint, masks: dict[str, BoolMatrix]) -> Finding | None:
    counts = {
        name: int(np.count_nonzero(checkpoint.weight(name)[~mask])) for name, mask in masks.items()
    }
    revived = {name: count for name, count in counts.items() if count}
    if not revived:
        return None
    total = sum(revived.values())
    return REVIVED_IN_TRAINING.at(
        folder,
        f"{total:,} pruned weights are no longer zero, in {plural(len(revived), 'layer')}.",
        count=total,
        examples=(f"{name}: {plural(count, 'weight')}" for name, count in revived.items()),
    )


def _leaking(
    folder: Path, momenta: dict[str, torch.Tensor], masks: dict[str, BoolMatrix]
) -> Finding | None:
    import torch

    leaks, pruned_weights = {}, 0
    for name, mask in masks.items():
        if name in momenta:
            pruned = torch.from_numpy(~mask)
            pruned_weights += int(pruned.sum())
            count = int(torch.count_nonzero(momenta[name][pruned]))
            if count:
                leaks[name] = count
    if not leaks:
        return None
    total = sum(leaks.values())
    return LEAKING_OPTIMIZER.at(
        folder / OPTIMIZER_NAME,
        f"{share(total, pruned_weights)} pruned weights have momentum, in "
        f"{plural(len(leaks), 'layer')}.",
        count=total,
        total=pruned_weights,
        examples=(f"{name}: {plural(count, 'weight')}" for name, count in leaks.items()),
    )


def _load(file: Path) -> Any:
    """The optimiser's state dict. Only plain tensors and containers are read, never code."""
    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # of pickle, zip or torch: all mean the same here
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error)
        raise CheckpointError(f"{file} is not a readable optimiser state: {reason}") from error


def _first_moments(state: Any, checkpoint: Checkpoint) -> dict[str, torch.Tensor] | None:
    """First moments by canonical name; None if parameters cannot be identified.

    A state dict numbers its parameters. The Trainer puts those with weight decay into the first
    group, and biases and norms into the second; a plain loop puts all into one. Within a group they
    are in the model's order. They are matched from last to first, with equal shapes, down to the
    embeddings, which training may leave out or train in part.
    """
    import torch

    groups = state.get("param_groups") if isinstance(state, dict) else None
    values = state.get("state") if isinstance(state, dict) else None
    if not isinstance(groups, list) or not isinstance(values, dict) or len(groups) not in (1, 2):
        return None
    numbers = groups[0].get("params") if isinstance(groups[0], dict) else None
    names = _in_model_order(checkpoint)
    shapes = {name: checkpoint.tensors.spec(checkpoint.stored_name[name]).shape for name in names}
    if len(groups) == 2:
        names = [name for name in names if len(shapes[name]) > 1 and name != RELATIVE_BIAS]
    if not isinstance(numbers, list) or len(numbers) < len(names):
        return None
    if not all(isinstance(number, int) for number in numbers):
        return None
    moments: dict[str, torch.Tensor] = {}
    for number, name in zip(reversed(numbers), reversed(names), strict=False):
        entry = values.get(number)
        entry = entry if isinstance(entry, dict) else {}  # a parameter that got no gradient
        found = next((entry[key] for key in _MOMENTA if key in entry), None)
        if isinstance(found, torch.Tensor):
            if tuple(found.shape) != shapes[name]:
                return None
            moments[name] = found
    return moments


def _in_model_order(checkpoint: Checkpoint) -> list[str]:
    """Tensors after the embeddings, in the order of transformers' parameters."""
    names = [name for name in checkpoint.used if not name.startswith("embeddings.")]
    if RELATIVE_BIAS in names:  # used first, but defined after the layers
        names.remove(RELATIVE_BIAS)
        layers = sum(name.startswith("encoder.") for name in names)
        names.insert(layers, RELATIVE_BIAS)
    return names
