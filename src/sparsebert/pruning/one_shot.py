"""One-shot pruning of a model folder to an N:M pattern, one tensor in memory at a time."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sparsebert.checkpoint.architecture import PARTS, LinearLayer
from sparsebert.checkpoint.auxiliary_files import write_auxiliary_files
from sparsebert.checkpoint.card import write_card
from sparsebert.checkpoint.dtypes import Array, Float32, narrow
from sparsebert.checkpoint.folder import Checkpoint, open_checkpoint
from sparsebert.checkpoint.masks import StoredMasks, write_mask_bits
from sparsebert.checkpoint.sparsity import pattern_record, with_step
from sparsebert.checkpoint.staging import check_output, staged_folder
from sparsebert.checkpoint.tensors import WEIGHTS_NAME, TensorSpec
from sparsebert.checkpoint.writing import write_tensors
from sparsebert.errors import DataError, PatternError
from sparsebert.extras import need_extra
from sparsebert.patterns import (
    BoolMatrix,
    Pattern,
    count_broken_groups,
    is_whole,
    mask_from_scores,
    mask_from_zeros,
    pack_mask,
)
from sparsebert.progress import Progress, shown
from sparsebert.pruning.calibration import PrunedLayers, prune_layers
from sparsebert.pruning.calibration_set import CalibrationSet, read_calibration_set
from sparsebert.pruning.methods import CALIBRATION_ROWS, Method, Needs, When, get_method
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.own import reading_task


@dataclass(frozen=True)
class PruneResult:
    """The result of `prune`.

    ``pruned`` and ``already_sparse`` name the layers of ``parts`` that now have the pattern;
    ``weights`` and ``zeros`` count what is in them. ``notes`` are sentences for the user, for
    example that there were too few calibration texts.
    """

    out: str
    pattern: str
    shared_rows: int
    method: str
    parts: list[str]
    pruned: list[str]
    already_sparse: list[str]
    weights: int
    zeros: int
    notes: list[str]
    seconds: float

    @property
    def sparsity(self) -> float:
        """Share of zeros among the weights of these layers."""
        return self.zeros / self.weights

    def as_dict(self) -> dict[str, Any]:
        """All fields as a dict, ready for JSON."""
        found = {**asdict(self), "sparsity": self.sparsity}
        order = [name for name in found if name not in ("notes", "sparsity", "seconds")]
        if self.shared_rows == 1:
            order.remove("shared_rows")
        return {name: found[name] for name in (*order, "sparsity", "notes", "seconds")}


def prune(
    model: str | Path,
    out: str | Path,
    *,
    pattern: str | Pattern = "1:2",
    shared_rows: int = 1,
    method: str | None = None,
    parts: Collection[str] = ("encoder",),
    calibration: str | Path | None = None,
    calibration_rows: int = CALIBRATION_ROWS,
    task: str | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> PruneResult:
    """Prune the linear layers in ``parts`` of ``model`` and write the result to the folder ``out``.

    Of every M adjacent weights along a layer's inputs, the method keeps N (the leftmost of equal
    ones); the others become exactly +0.0. Layers whose zeros already fit the pattern are left
    unchanged. With ``shared_rows`` above 1 (1:2 only), that many adjacent rows keep the same
    inputs, so that any CPU can skip the zeros, at some cost of accuracy. ``parts`` are any of
    "encoder", "pooler" and "head". Masks, pattern and lineage are written beside the weights, and
    every tensor keeps its dtype.

    ``method`` is "magnitude", "wanda" or "second-order"; by default it is "second-order" if
    ``calibration`` is given, else "magnitude". The latter two run calibration texts through the
    model on torch, and "second-order" also refits the weights that it keeps. The texts are a fixed
    selection of ``calibration_rows`` texts from ``calibration``, a file or folder as for
    `sparsebert.tasks.texts.read_texts`; the columns of a table are named by ``text_column`` and
    ``pair_column``, or are those of ``task``. Calibration needs memory for one layer and its inputs
    for all texts.

    Raises PatternError if the pattern does not divide a layer's inputs or layers outside of
    ``parts`` were pruned to another one, as a folder records one pattern; CheckpointError for a
    damaged model (including NaN and infinity), DataError for texts that cannot be used,
    MissingExtraError without torch, and OutputError if ``out`` cannot be written.
    """
    began = time.perf_counter()
    check_output(out, force=force)
    wanted = Pattern.parse(str(pattern), shared_rows)
    method = method or ("magnitude" if calibration is None else "second-order")
    chosen_method = get_method(method, When.ONE_SHOT)
    chosen = check_parts(parts)
    checkpoint = open_checkpoint(model)
    targets = checkpoint.linear_layers(chosen)
    _check_divisible(checkpoint, targets, wanted, chosen)
    _check_others(checkpoint, wanted, chosen)
    columns = DataOptions(text_column, pair_column)
    texts = _calibration_set(
        checkpoint, chosen_method, calibration, calibration_rows, task, columns
    )
    scarcity = texts and texts.scarcity(checkpoint.config, targets)
    arguments: dict[str, Any] = pattern_record(wanted) | {"method": method, "parts": list(chosen)}
    if texts is not None:
        arguments["calibration"] = Path(str(calibration)).name
        arguments["calibration_rows"] = len(texts)
        arguments["task"] = task
        arguments |= columns.given()
    with staged_folder(out, force=force, source=checkpoint.path) as staging:
        run = _Run(checkpoint, wanted, chosen_method, targets, texts, shown(progress))
        specs = run.order([checkpoint.tensors.spec(name) for name in checkpoint.tensors])
        metadata = {"format": "pt", **checkpoint.tensors.metadata}
        write_tensors(staging / WEIGHTS_NAME, specs, run.tensors(specs), metadata)
        write_mask_bits(staging, run.masks)
        record = with_step(
            checkpoint.config.raw,
            "prune",
            checkpoint.source,
            arguments,
            pattern=wanted,
            method=method if run.pruned else None,  # nothing new: the recorded one stays
            layers=[
                layer.name for layer in checkpoint.linear_layers(PARTS) if layer.name in run.masks
            ],
        )
        write_auxiliary_files(staging, record, source=checkpoint.path)
        write_card(staging, source=checkpoint.path)
    return PruneResult(
        out=str(out),
        pattern=wanted.ratio,
        shared_rows=wanted.shared_rows,
        method=method,
        parts=list(chosen),
        pruned=run.pruned,
        already_sparse=run.already_sparse,
        weights=run.weights,
        zeros=run.zeros,
        notes=[scarcity] if scarcity else [],
        seconds=round(time.perf_counter() - began, 3),
    )


class _Run:
    """One pass over a checkpoint's tensors that prunes the targets."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        pattern: Pattern,
        method: Method,
        targets: list[LinearLayer],
        texts: CalibrationSet | None,
        report: Progress,
    ) -> None:
        self.masks: dict[str, Array] = {}  # packed bits by canonical name
        self.pruned: list[str] = []
        self.already_sparse: list[str] = []
        self.weights = self.zeros = 0
        self._checkpoint = checkpoint
        self._pattern = pattern
        self._scores = method.scores
        self._targets = {layer.name for layer in targets}
        self._linear = {layer.name: layer for layer in checkpoint.linear_layers(PARTS)}
        self._stored = StoredMasks(checkpoint)
        self._report = report
        self._calibrated: PrunedLayers | None = None
        if texts is not None:
            assert method.prune_linear is not None
            dense = [
                layer.name
                for layer in targets
                if self._existing_mask(layer, checkpoint.finite_weight(layer.name)) is None
            ]
            prune_linear = partial(method.prune_linear, pattern=pattern)
            self._calibrated = PrunedLayers(prune_layers(checkpoint, texts, dense, prune_linear))

    def order(self, specs: list[TensorSpec]) -> list[TensorSpec]:
        """The tensors in computing order: calibration prunes a layer after those it reads from."""
        stored = [self._checkpoint.stored_name[name] for name in self._checkpoint.used]
        order = {name: index for index, name in enumerate(stored)}
        return sorted(specs, key=lambda spec: order.get(spec.name, len(order)))

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
            return self._bias(name, raw)
        layer = self._linear[name]
        mask = self._existing_mask(layer, weight)
        if name not in self._targets:
            if mask is not None:  # already sparse: recorded, although it is not a target
                self.masks[name] = pack_mask(mask)
            return raw
        if mask is not None:
            self.already_sparse.append(name)
        else:
            self.pruned.append(name)
            if self._calibrated is not None:
                layer_found = self._calibrated[name]
                weight = layer_found.weight.numpy()
                mask = layer_found.mask.numpy()
                raw = self._rounded(name, weight)
            else:
                assert self._scores is not None
                mask = mask_from_scores(self._scores(weight), self._pattern)
        self.masks[name] = pack_mask(mask)
        kept: Array = np.where(mask, raw, raw.dtype.type(0))  # +0.0 even where it was -0.0
        self.weights += weight.size
        self.zeros += weight.size - int(np.count_nonzero(np.where(mask, weight, 0)))
        return kept

    def _bias(self, name: str, raw: Array) -> Array:
        """The bias of a layer that calibration pruned, as it may have changed it; else ``raw``."""
        weight = f"{name.removesuffix('.bias')}.weight"
        if self._calibrated is None or weight not in self.pruned:
            return raw
        bias = self._calibrated[weight].bias
        assert bias is not None
        return self._rounded(name, bias.numpy())

    def _rounded(self, name: str, values: Float32) -> Array:
        """New values in the dtype that the checkpoint stores."""
        stored = self._checkpoint.stored_name[name]
        return narrow(values, self._checkpoint.tensors.spec(stored).dtype)

    def _existing_mask(self, layer: LinearLayer, weight: Float32) -> BoolMatrix | None:
        """The mask of a layer whose weights already fit the pattern; None for any other."""
        if layer.columns % self._pattern.m or not weight.any():
            return None
        if count_broken_groups(weight, self._pattern):
            return None
        if layer.name in self._stored:
            mask = self._stored.read(layer)
            if is_whole(mask, self._pattern) and not np.any(weight[~mask]):
                return mask
        return mask_from_zeros(weight, self._pattern)


def _calibration_set(
    checkpoint: Checkpoint,
    method: Method,
    source: str | Path | None,
    count: int,
    task: str | None,
    columns: DataOptions,
) -> CalibrationSet | None:
    """The texts to calibrate on; None for a method that needs none."""
    if method.needs is not Needs.CALIBRATION:
        given = ["the calibration texts"] if source is not None else []
        given += [f"the task '{task}'"] if task is not None else []
        given += ["calibration_rows"] if count != CALIBRATION_ROWS else []
        given += columns.given()
        if given:
            raise DataError(
                f"the method {method.name} does not calibrate: leave {' and '.join(given)} out, or "
                "choose wanda or second-order."
            )
        return None
    if source is None:
        raise DataError(
            f"the method {method.name} calibrates on texts: pass a file or folder of them as "
            "calibration, preferably of the kind that the model will read."
        )
    need_extra(f"{method.name} pruning", "torch")
    # The user's own columns are known without a task.
    chosen = reading_task(task)
    return read_calibration_set(checkpoint, source, count=count, task=chosen, columns=columns)


def check_parts(parts: Collection[str]) -> tuple[str, ...]:
    """The named parts of a model, in order. PatternError unless they are a list of parts."""
    if isinstance(parts, str):
        raise PatternError(
            f"parts must be a list, not the text {parts!r}: choose from {', '.join(PARTS)}."
        )
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        said = f"{unknown[0]!r} is not a part of a model" if unknown else "parts must not be empty"
        raise PatternError(f"{said}: choose from {', '.join(PARTS)}.")
    return tuple(part for part in PARTS if part in parts)


def _check_divisible(
    checkpoint: Checkpoint, targets: list[LinearLayer], pattern: Pattern, parts: tuple[str, ...]
) -> None:
    if not targets:
        raise PatternError(
            f"{checkpoint.path} has no linear layer in its {' and '.join(parts)} to prune."
        )
    for layer in targets:
        layer.check_divides(pattern)


def _check_others(checkpoint: Checkpoint, pattern: Pattern, parts: tuple[str, ...]) -> None:
    """PatternError if layers of other parts have the record or masks of another pattern.

    A folder records one pattern, so theirs would be lost, and fine-tuning would revive them.
    """
    config, stored = checkpoint.config, StoredMasks(checkpoint)
    others = [
        layer
        for layer in checkpoint.linear_layers(PARTS)
        if layer.part not in parts
        and (
            (layer.name in config.recorded_layers and config.recorded_pattern != pattern)
            or (layer.name in stored and not is_whole(stored.read(layer), pattern))
        )
    ]
    if others:
        together = [part for part in PARTS if part in (*parts, *(layer.part for layer in others))]
        known = (
            "" if config.recorded_pattern in (None, pattern) else f" ({config.recorded_pattern})"
        )
        raise PatternError(
            f"'{others[0].name}' of {checkpoint.path} was pruned to another pattern than "
            f"{pattern}, and a model has only one: choose that pattern{known}, or prune both "
            f"together with --parts {','.join(together)} (parts={together})."
        )
