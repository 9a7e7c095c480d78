"""One-shot pruning of a model folder to an N:M pattern, one tensor in memory at a time."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sparsebert.checkpoint.architecture import PARTS, LinearLayer
from sparsebert.checkpoint.card import write_card
from sparsebert.checkpoint.companions import copy_companions
from sparsebert.checkpoint.config import write_config
from sparsebert.checkpoint.dtypes import Array, Float32
from sparsebert.checkpoint.folder import Checkpoint, open_checkpoint
from sparsebert.checkpoint.lineage import with_step
from sparsebert.checkpoint.masks import StoredMasks, write_mask_bits
from sparsebert.checkpoint.staging import check_output, staged_folder
from sparsebert.checkpoint.tensors import WEIGHTS_NAME, TensorSpec
from sparsebert.checkpoint.writing import write_tensors
from sparsebert.errors import PatternError
from sparsebert.patterns import (
    BoolMatrix,
    Pattern,
    count_broken_groups,
    is_whole,
    mask_from_scores,
    mask_from_zeros,
    pack_mask,
)
from sparsebert.progress import Progress, silent
from sparsebert.pruning.methods import Scores, get_method


def prune(
    model: str | Path,
    out: str | Path,
    *,
    pattern: str | Pattern = "1:2",
    method: str = "magnitude",
    parts: Collection[str] = ("encoder",),
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write ``model`` to the folder ``out`` with the linear layers of ``parts`` pruned.

    Of every M adjacent weights along a layer's inputs the N of highest score are kept, ties going
    to the left; the others become exactly +0.0. A layer whose zeros fit the pattern already is left
    as it is. ``parts`` are any of "encoder", "pooler" and "head". Masks, pattern and lineage are
    written beside the weights, and every tensor keeps its type.

    Returns the counts: layers pruned and already sparse, weights and zeros in them, seconds.
    Raises PatternError if the pattern does not divide a layer, CheckpointError for a damaged model
    (NaN and infinity included), OutputError if ``out`` cannot be written.
    """
    began = time.perf_counter()
    check_output(out, force=force)
    wanted = pattern if isinstance(pattern, Pattern) else Pattern.parse(pattern)
    scores = get_method(method)
    chosen = _check_parts(parts)
    checkpoint = open_checkpoint(model)
    targets = checkpoint.linear_layers(chosen)
    _check_divisible(checkpoint, targets, wanted, chosen)
    with staged_folder(out, force=force, source=checkpoint.path) as staging:
        run = _Run(checkpoint, wanted, scores, targets, progress or silent)
        specs = [checkpoint.tensors.spec(name) for name in checkpoint.tensors]
        metadata = {"format": "pt", **checkpoint.tensors.metadata}
        write_tensors(staging / WEIGHTS_NAME, specs, run.tensors(specs), metadata)
        write_mask_bits(staging, run.masks)
        record = with_step(
            checkpoint.config.raw,
            "prune",
            checkpoint.source,
            {"pattern": str(wanted), "method": method, "parts": list(chosen)},
            pattern=str(wanted),
            method=method,
            layers=[
                layer.name for layer in checkpoint.linear_layers(PARTS) if layer.name in run.masks
            ],
        )
        write_config(staging, record)
        copy_companions(checkpoint.path, staging)
        write_card(staging, source=checkpoint.path)
    return {
        "out": str(out),
        "pattern": str(wanted),
        "method": method,
        "parts": list(chosen),
        "pruned": run.pruned,
        "already_sparse": run.already_sparse,
        "weights": run.weights,
        "zeros": run.zeros,
        "sparsity": run.zeros / run.weights,
        "seconds": round(time.perf_counter() - began, 3),
    }


class _Run:
    """One pass over a checkpoint's tensors, pruning those that are targets."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        pattern: Pattern,
        scores: Scores,
        targets: list[LinearLayer],
        report: Progress,
    ) -> None:
        self.masks: dict[str, Array] = {}  # packed bits by canonical name
        self.pruned: list[str] = []
        self.already_sparse: list[str] = []
        self.weights = self.zeros = 0
        self._checkpoint = checkpoint
        self._pattern = pattern
        self._scores = scores
        self._targets = {layer.name for layer in targets}
        self._linear = {layer.name: layer for layer in checkpoint.linear_layers(PARTS)}
        self._stored = StoredMasks(checkpoint)
        self._report = report

    def tensors(self, specs: list[TensorSpec]) -> Iterator[Array]:
        names = {stored: name for name, stored in self._checkpoint.stored_name.items()}
        used = set(self._checkpoint.used)
        label = f"pruning {self._checkpoint.source} to {self._pattern}"
        for done, spec in enumerate(specs):
            self._report(label, done, len(specs))
            yield self._tensor(spec.name, names.get(spec.name, spec.name), used)
        self._report(label, len(specs), len(specs))

    def _tensor(self, stored: str, name: str, used: set[str]) -> Array:
        raw = self._checkpoint.tensors[stored]
        if name not in used:
            return raw
        weight = self._checkpoint.finite_weight(name)
        if name not in self._linear:
            return raw
        layer = self._linear[name]
        mask = self._existing_mask(layer, weight)
        if name not in self._targets:
            if mask is not None:  # sparse already, though not asked for: recorded all the same
                self.masks[name] = pack_mask(mask)
            return raw
        if mask is None:
            mask = mask_from_scores(self._scores(weight), self._pattern)
            self.pruned.append(name)
        else:
            self.already_sparse.append(name)
        self.masks[name] = pack_mask(mask)
        kept: Array = np.where(mask, raw, raw.dtype.type(0))  # +0.0 also where -0.0 stood
        self.weights += weight.size
        self.zeros += weight.size - int(np.count_nonzero(np.where(mask, weight, 0)))
        return kept

    def _existing_mask(self, layer: LinearLayer, weight: Float32) -> BoolMatrix | None:
        """The mask of a layer whose weights fit the pattern already; None for any other."""
        if layer.columns % self._pattern.m or not weight.any():
            return None
        if count_broken_groups(weight, self._pattern):
            return None
        if layer.name in self._stored:
            mask = self._stored.read(layer)
            if is_whole(mask, self._pattern) and not np.any(weight[~mask]):
                return mask
        return mask_from_zeros(weight, self._pattern)


def _check_parts(parts: Collection[str]) -> tuple[str, ...]:
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts or isinstance(parts, str):
        said = repr(parts) if isinstance(parts, str) or not parts else repr(unknown[0])
        raise PatternError(f"{said} are not parts of a model: choose from {', '.join(PARTS)}.")
    return tuple(part for part in PARTS if part in parts)


def _check_divisible(
    checkpoint: Checkpoint, targets: list[LinearLayer], pattern: Pattern, parts: tuple[str, ...]
) -> None:
    if not targets:
        raise PatternError(
            f"{checkpoint.path} has no linear layer in its {' and '.join(parts)} to prune."
        )
    for layer in targets:
        if layer.columns % pattern.m:
            raise PatternError(
                f"layer '{layer.name}' has an input dimension of {layer.columns}, which cannot be "
                f"cut into groups of {pattern.m} for {pattern}: choose a pattern whose M divides "
                "it."
            )
