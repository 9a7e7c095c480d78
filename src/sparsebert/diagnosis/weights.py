"""Weights: whether the folder can be read, non-finite values, duplicated layers."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sparsebert.checkpoint import PARTS, Checkpoint, open_checkpoint
from sparsebert.checkpoint.dtypes import Array
from sparsebert.diagnosis.report import Check, Finding, Problem, Severity, plural
from sparsebert.errors import CheckpointError
from sparsebert.packing import is_packed, open_packed, parts_of

GROUP = "weights"

UNREADABLE_MODEL = Problem(
    "unreadable-model",
    Severity.ERROR,
    "fix what the message says, or fetch or write the folder again.",
)
NON_FINITE_WEIGHTS = Problem(
    "non-finite-weights",
    Severity.ERROR,
    "the training that wrote them diverged: go back to the previous folder and train with a lower "
    "learning rate.",
)
SHARED_WEIGHTS = Problem(
    "shared-weights",
    Severity.WARNING,
    "if the layers are tied (as in ALBERT), note that they are pruned alike but trained separately "
    "here; if not, one was copied over the other: fetch the model again.",
)


def check_opening(folder: Path) -> Check:
    """Whether the folder can be opened as a model."""
    try:
        if is_packed(folder):
            packed = open_packed(folder)
            config, form = packed.config, f"packed {packed.dtype}"
        else:
            config, form = open_checkpoint(folder).config, "safetensors"
    except CheckpointError as error:
        return Check.of(GROUP, "opening", "not read", [UNREADABLE_MODEL.at(folder, str(error))])
    seen = (
        f"{folder}: {form}, {config.head.value} {config.family.class_name}, "
        f"{config.num_hidden_layers} layers of {config.hidden_size}"
    )
    return Check.of(GROUP, "opening", seen, [])


def check_weights(folder: Path) -> Iterator[Check]:
    """Values and duplicated layers of a readable folder."""
    if is_packed(folder):
        names, wrong = 0, []
        for name, weight in open_packed(folder).weights.items():
            names += 1
            if not all(_is_finite(part) for part in parts_of(weight).values()):
                wrong.append(name)
        yield _values(folder, names, wrong)
        return
    checkpoint = open_checkpoint(folder)
    wrong = [name for name in checkpoint.used if not _is_finite(checkpoint.weight(name))]
    yield _values(folder, len(checkpoint.used), wrong)
    layers = checkpoint.linear_layers(PARTS)
    seen = f"{plural(len(layers), 'linear layer')} compared with each other"
    yield Check.of(GROUP, "sharing", seen, [_shared(folder, checkpoint)])


def _is_finite(values: Array) -> bool:
    return not np.issubdtype(values.dtype, np.floating) or bool(np.isfinite(values).all())


def _values(folder: Path, count: int, wrong: list[str]) -> Check:
    finding = None
    if wrong:
        finding = NON_FINITE_WEIGHTS.at(
            folder,
            f"{plural(len(wrong), 'tensor')} of {count} "
            f"{'contains' if len(wrong) == 1 else 'contain'} NaN or infinity.",
            count=len(wrong),
            total=count,
            examples=wrong,
        )
    return Check.of(GROUP, "values", f"{plural(count, 'tensor')} read", [finding])


def _shared(folder: Path, checkpoint: Checkpoint) -> Finding | None:
    alike: dict[bytes, list[str]] = defaultdict(list)
    for layer in checkpoint.linear_layers(PARTS):
        values = checkpoint.tensors[layer.stored_as]
        if np.any(values):  # layers of zeros are no copies
            alike[hashlib.blake2b(values.tobytes()).digest()].append(layer.name)
    groups = [names for names in alike.values() if len(names) > 1]
    if not groups:
        return None
    count = sum(map(len, groups))
    return SHARED_WEIGHTS.at(
        folder,
        f"{count} linear layers have the same values as another.",
        count=count,
        examples=(" = ".join(names) for names in groups),
    )
