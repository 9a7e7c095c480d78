"""How sparse a model is, layer by layer, and whether the pattern it records still holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.checkpoint.architecture import PARTS, linear_names
from sparsebert.checkpoint.config import EncoderConfig
from sparsebert.checkpoint.dtypes import Array
from sparsebert.checkpoint.folder import Checkpoint, open_checkpoint
from sparsebert.checkpoint.hub import resolve_model
from sparsebert.checkpoint.masks import StoredMasks
from sparsebert.extras import data_frame
from sparsebert.packing.answers import AnswerCheck, check_answers
from sparsebert.packing.forms import to_dense
from sparsebert.packing.packed_model import PackedModel, is_packed, open_packed
from sparsebert.patterns import count_broken_groups, detect
from sparsebert.progress import Progress, shown

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LayerReport:
    """One linear layer of a model.

    ``zeros`` is the share of its weights that are zero. ``pattern`` is the tightest known pattern
    that its zeros fit, None for a dense layer; ``recorded`` is the pattern that the folder records
    for it. ``broken_groups`` counts the groups in which the recorded pattern does not hold,
    ``revived`` the non-zero weights outside the stored mask.
    """

    name: str
    part: str
    rows: int
    columns: int
    zeros: float
    pattern: str | None
    recorded: str | None
    broken_groups: int
    revived: int

    @property
    def whole(self) -> bool:
        """Whether the layer's weights agree with what the folder records about them."""
        return self.broken_groups == 0 and self.revived == 0

    @property
    def state(self) -> str:
        """The layer's pattern in words, and what is broken about it."""
        state = self.recorded or self.pattern or "dense"
        if self.broken_groups:
            return f"{state} BROKEN in {self.broken_groups} groups"
        if self.revived:
            return f"{state} BROKEN: {self.revived} pruned weights are not zero"
        return state


@dataclass(frozen=True, repr=False)
class Inspection:
    """What `inspect` found in a folder.

    ``form`` is "packed", "sparse" or "dense". ``answers`` compares a packed model's outputs on
    fixed inputs with those that it gave when it was packed; it is None for other folders, and for
    one that was packed before such outputs were stored.
    """

    path: str
    form: str
    head: str
    pattern: str | None
    layers: tuple[LayerReport, ...]
    answers: AnswerCheck | None = None

    @property
    def whole(self) -> bool:
        """Whether all recorded patterns and masks hold, and the outputs are as when packed."""
        return all(layer.whole for layer in self.layers) and self.answers_hold

    @property
    def answers_hold(self) -> bool:
        """Whether the outputs are as when packed; also True if that is not known."""
        return self.answers is None or self.answers.fine

    @property
    def zeros(self) -> float:
        """Share of zeros in all linear layers taken together."""
        weights = sum(layer.rows * layer.columns for layer in self.layers)
        return sum(layer.zeros * layer.rows * layer.columns for layer in self.layers) / weights

    def to_dict(self) -> dict[str, Any]:
        """All fields, `whole` and `zeros` as a dict, ready for JSON."""
        layers = [{**asdict(layer), "whole": layer.whole} for layer in self.layers]
        return {**asdict(self), "layers": layers, "whole": self.whole, "zeros": self.zeros}

    def to_pandas(self) -> pd.DataFrame:
        """One row per layer; needs [notebook]."""
        return data_frame({**asdict(layer), "whole": layer.whole} for layer in self.layers)

    def summary(self) -> str:
        """How sparse the model is, and whether it matches what its folder records, in words."""
        sparse = sum(layer.pattern is not None for layer in self.layers)
        said = (
            f"{self.path}: {self.form} {self.head} model, {sparse} of {len(self.layers)} linear "
            f"layers sparse, {self.zeros:.1%} of their weights zero."
        )
        broken = sum(not layer.whole for layer in self.layers)
        if broken:
            said += (
                f"\nBROKEN: {broken} of {len(self.layers)} layers no longer match what the folder "
                "records. Something changed them without locking the zeros: prune the model again."
            )
        elif self.pattern:
            recorded = sum(layer.recorded is not None for layer in self.layers)
            said += f"\nThe recorded pattern {self.pattern} holds in all its {recorded} layers."
        return f"{said}\n{self._as_packed()}" if self.form == "packed" else said

    def _as_packed(self) -> str:
        if self.answers is None:
            return (
                "It was packed without checksums, so damage to it may go unnoticed: "
                f"`sparsebert inspect {self.path} --accept` adds them."
            )
        how = self.answers.told()
        if self.answers_hold:
            return f"Its files are unchanged since it was packed, and so are its answers, {how}."
        return (
            f"BROKEN: its files are unchanged since it was packed, but its answers are not: {how}. "
            "Something is wrong with this build of the engine, or with this machine."
        )

    def listing(self) -> str:
        """The layers as a table, followed by the summary."""
        width = max(len(layer.name) for layer in self.layers)
        lines = [f"{'layer':<{width}}  {'outputs':>7} {'inputs':>7} {'zeros':>7}  pattern"]
        lines += [
            f"{layer.name:<{width}}  {layer.rows:>7} {layer.columns:>7} {layer.zeros:>7.1%}  "
            f"{layer.state}"
            for layer in self.layers
        ]
        return "\n".join([*lines, "", self.summary()])

    def __repr__(self) -> str:
        return f"<Inspection {' '.join(self.summary().splitlines())}>"

    def _repr_markdown_(self) -> str:
        return f"```text\n{self.listing()}\n```"


def inspect(model: str | Path, *, progress: Progress | None = None) -> Inspection:
    """Examine every linear layer of a dense, sparse or packed folder (or hub id).

    A packed model is also run again on the inputs it was given when it was packed. A broken pattern
    or different outputs are reported, not raised. Raises CheckpointError for a folder that cannot
    be read.
    """
    path = resolve_model(model)
    report = shown(progress)
    packed = open_packed(path) if is_packed(path) else None
    if packed:
        config, layers = packed.config, _packed_layers(packed, report)
    else:
        checkpoint = open_checkpoint(path)
        config, layers = checkpoint.config, _folder_layers(checkpoint, report)
    reports = tuple(layers)
    form = "dense"
    if packed:
        form = "packed"
    elif any(layer.pattern or layer.recorded for layer in reports):
        form = "sparse"
    recorded = config.recorded_pattern
    return Inspection(
        str(model),
        form,
        config.head.value,
        None if recorded is None else str(recorded),
        reports,
        check_answers(packed) if packed else None,
    )


def _folder_layers(checkpoint: Checkpoint, report: Progress) -> Iterator[LayerReport]:
    masks = StoredMasks(checkpoint)
    layers = checkpoint.linear_layers(PARTS)
    for done, layer in enumerate(layers):
        report("inspecting", done, len(layers))
        weight = checkpoint.weight(layer.name)
        revived = 0
        if layer.name in masks:
            revived = int(np.count_nonzero(weight[~masks.read(layer)]))
        yield _layer(checkpoint.config, layer.name, layer.part, weight, revived)
    report("inspecting", len(layers), len(layers))


def _packed_layers(packed: PackedModel, report: Progress) -> Iterator[LayerReport]:
    layers = [item for item in linear_names(packed.config).items() if item[0] in packed.weights]
    for done, (name, part) in enumerate(layers):
        report("inspecting", done, len(layers))
        yield _layer(packed.config, name, part, to_dense(packed.weights[name]), 0)
    report("inspecting", len(layers), len(layers))


def _layer(config: EncoderConfig, name: str, part: str, weight: Array, revived: int) -> LayerReport:
    found = detect(weight)
    recorded = config.recorded_pattern if name in config.recorded_layers else None
    return LayerReport(
        name=name,
        part=part,
        rows=weight.shape[0],
        columns=weight.shape[1],
        zeros=1 - int(np.count_nonzero(weight)) / weight.size,
        pattern=None if found is None else str(found),
        recorded=None if recorded is None else str(recorded),
        broken_groups=0 if recorded is None else count_broken_groups(weight, recorded),
        revived=revived,
    )
