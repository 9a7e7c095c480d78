"""Masks of pruned layers: which weights may be non-zero.

They are stored beside the weights because zeros are ambiguous: a kept weight that happens
to be 0.0 must stay trainable. Without a file they are derived from the zeros.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsebert.checkpoint.architecture import PARTS, LinearLayer
from sparsebert.checkpoint.dtypes import Array, Float32
from sparsebert.checkpoint.folder import Checkpoint
from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.tensors import TensorFiles, TensorSpec
from sparsebert.checkpoint.writing import write_tensors
from sparsebert.errors import CheckpointError, PatternError
from sparsebert.patterns import (
    BoolMatrix,
    Pattern,
    count_broken_groups,
    detect,
    is_whole,
    mask_from_zeros,
    pack_mask,
    unpack_mask,
)

MASKS_NAME = "masks.safetensors"
_KEY = "sparsebert"
_VERSION = 1


class LayerMask(NamedTuple):
    """A sparse layer's pattern and its complete mask, bool ``[rows, columns]``."""

    pattern: Pattern
    mask: BoolMatrix


class StoredMasks:
    """The masks.safetensors of a folder, read one layer at a time; empty if there is none.

    Raises CheckpointError if it is damaged or names layers that the model does not have.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint, self._path = checkpoint, checkpoint.transformer / MASKS_NAME
        self._bits = TensorFiles([self._path] if has_file(self._path) else [])
        layers = {layer.name: layer for layer in checkpoint.linear_layers(PARTS)}
        for name in self._bits:
            layer = layers.get(name)
            if layer is None:
                raise CheckpointError(
                    f"{self._path} has a mask for '{name}', which is not a layer of the model."
                )
            spec = self._bits.spec(name)
            if spec.dtype != "U8" or spec.shape != (layer.rows, -(-layer.columns // 8)):
                raise CheckpointError(
                    f"{self._path}: the mask of '{name}' does not fit its "
                    f"[{layer.rows}, {layer.columns}] weight."
                )

    def __contains__(self, name: str) -> bool:
        return name in self._bits

    def read(self, layer: LinearLayer) -> BoolMatrix:
        """The stored mask of a layer that has one."""
        return unpack_mask(self._bits[layer.name], layer.columns)

    def find(self, layer: LinearLayer, weight: Float32) -> LayerMask | None:
        """Pattern and complete mask of a layer with values ``weight``; None if it is dense.

        A stored mask takes precedence over the recorded pattern, and that over the pattern of the
        zeros. Raises PatternError, naming the layer, if the weights break what was stored or
        recorded, and CheckpointError for a stored mask that does not follow an N:M pattern.
        """
        config = self._checkpoint.config
        recorded = config.recorded_pattern
        if layer.name in self:
            mask = self.read(layer)
            pattern = _mask_pattern(mask, recorded)
            if pattern is None:
                raise CheckpointError(
                    f"{self._path}: the mask of '{layer.name}' does not follow an N:M pattern."
                )
            revived = int(np.count_nonzero(weight[~mask]))
            if revived:
                what = f"{revived} weights that its mask prunes are not zero"
                raise _broken(self._checkpoint, layer, pattern, what)
            return LayerMask(pattern, mask)
        if layer.name in config.recorded_layers and recorded is not None:
            broken = count_broken_groups(weight, recorded)
            if broken:
                what = f"{broken} groups hold more than {recorded.n} non-zeros of {recorded.m}"
                raise _broken(self._checkpoint, layer, recorded, what)
            return LayerMask(recorded, mask_from_zeros(weight, recorded))
        found = detect(weight)
        return None if found is None else LayerMask(found, mask_from_zeros(weight, found))


def read_masks(checkpoint: Checkpoint) -> dict[str, BoolMatrix]:
    """Masks of all sparse layers by canonical name; dense layers are left out.

    Covers the encoder, the pooler and the head. Raises PatternError, naming the layer, if weights
    outside a stored mask are not zero or a recorded pattern is broken, and CheckpointError for a
    damaged masks.safetensors.
    """
    stored = StoredMasks(checkpoint)
    masks = {}
    for layer in checkpoint.linear_layers(PARTS):
        found = stored.find(layer, checkpoint.weight(layer.name))
        if found is not None:
            masks[layer.name] = found.mask
    return masks


def write_masks(path: Path, masks: Mapping[str, BoolMatrix]) -> None:
    """Write masks (one bit per weight, by canonical name): ``path`` is the file or its folder."""
    write_mask_bits(path, {name: pack_mask(mask) for name, mask in masks.items()})


def write_mask_bits(path: Path, bits: Mapping[str, Array]) -> None:
    """`write_masks` of masks already packed with `patterns.pack_mask`."""
    file = path / MASKS_NAME if path.is_dir() else path
    specs = [TensorSpec(name, "U8", packed.shape) for name, packed in bits.items()]
    metadata = {_KEY: json.dumps({"format_version": _VERSION, "kind": "masks"})}
    write_tensors(file, specs, bits.values(), metadata)


def _mask_pattern(mask: BoolMatrix, recorded: Pattern | None) -> Pattern | None:
    """The pattern of which this mask fills every group exactly."""
    for pattern in (recorded, detect(mask)):
        if pattern is not None and is_whole(mask, pattern):
            return pattern
    return None


def _broken(
    checkpoint: Checkpoint, layer: LinearLayer, pattern: Pattern, what: str
) -> PatternError:
    return PatternError(
        f"{checkpoint.path}: layer '{layer.name}' is recorded as {pattern}, but {what}. It was "
        "changed without locking the zeros: prune it again, or go back to the sparse folder."
    )
