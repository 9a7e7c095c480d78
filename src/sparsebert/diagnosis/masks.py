"""Masks: whether pruned weights are still zero, and whether the masks agree with config.json."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from sparsebert.checkpoint import MASKS_NAME, open_checkpoint
from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.checkpoint.masks import StoredMasks
from sparsebert.diagnosis.report import Check, Finding, Problem, Severity, plural, share
from sparsebert.errors import CheckpointError
from sparsebert.packing import is_packed
from sparsebert.patterns import KNOWN_PATTERNS, Pattern, is_whole
from sparsebert.progress import Progress
from sparsebert.pruning.inspection import LayerReport, inspect

GROUP = "masks"
_MANY_ZEROS = 0.1  # share; trained weights are hardly ever exactly zero

UNREADABLE_MASKS = Problem(
    "unreadable-masks",
    Severity.ERROR,
    f"remove {MASKS_NAME} (the pattern is then derived from the zeros), or prune the dense model "
    "again.",
)
BROKEN_PATTERN = Problem(
    "broken-pattern",
    Severity.ERROR,
    "something trained or edited the weights without locking their zeros: go back to the previous "
    "folder and fine-tune it with `sparsebert finetune`. Pruning and fine-tuning this one again "
    "works too, but costs accuracy once more.",
)
REVIVED_WEIGHTS = Problem(
    "revived-weights",
    Severity.ERROR,
    "something trained the weights without locking their zeros: go back to the previous folder and "
    "fine-tune it with `sparsebert finetune`, or add LockedMasksCallback to your own Trainer.",
)
MASK_MISMATCH = Problem(
    "mask-mismatch",
    Severity.ERROR,
    f"{MASKS_NAME} and {CONFIG_NAME} come from different models: take both from the same folder, "
    "or prune the dense model again.",
)
MASK_MISSING = Problem(
    "mask-missing",
    Severity.WARNING,
    f"copy {MASKS_NAME} from the folder that was pruned; without it, the mask is derived from the "
    "zeros, and a kept weight that happens to be 0.0 is taken for a pruned one.",
)
MASK_NOT_RECORDED = Problem(
    "mask-not-recorded",
    Severity.WARNING,
    f"take {CONFIG_NAME} from the folder that the masks were written to.",
)
UNRECORDED_PATTERN = Problem(
    "unrecorded-pattern",
    Severity.NOTE,
    "nothing, unless you want the record: everything works, because the pattern is derived from "
    "the zeros.",
)
ZEROS_WITHOUT_PATTERN = Problem(
    "zeros-without-pattern",
    Severity.WARNING,
    "zeros at arbitrary positions save neither time nor memory here: run `sparsebert prune` on the "
    "model, then fine-tune it. If nearly half are zero, a pattern was probably lost in training. "
    "If they have a less common pattern, `sparsebert prune --pattern N:M` with it records that.",
)


def check_masks(folder: Path, progress: Progress) -> Iterator[Check]:
    """The checks of one model folder. CheckpointError if it cannot be opened at all."""
    stored: dict[str, bool] = {}
    damage: Finding | None = None
    if not is_packed(folder):
        try:
            stored = _stored_masks(folder)
        except CheckpointError as error:
            damage = UNREADABLE_MASKS.at(folder / MASKS_NAME, str(error))
    if damage is not None:
        yield Check.of(GROUP, "stored masks", "they cannot be read", [damage])
        yield Check.skip(GROUP, "recorded pattern", "the stored masks cannot be read")
        return
    found = inspect(folder, progress=progress)
    recorded = [layer for layer in found.layers if layer.recorded]
    # Where a mask marks the pruned weights, `_revived` counts those instead.
    unmasked = [layer for layer in recorded if not stored.get(layer.name)]
    findings = [_broken(folder, unmasked), _revived(folder, found.layers, stored)]
    yield Check.of(GROUP, "recorded pattern", _held(found.pattern, recorded), findings)
    if not is_packed(folder):
        yield Check.of(
            GROUP,
            "stored masks",
            f"{plural(len(stored), 'mask')} in {MASKS_NAME}" if stored else f"no {MASKS_NAME}",
            [
                _mismatched(folder, stored, found.pattern),
                _missing(folder, recorded, stored),
                _not_recorded(folder, recorded, stored, found.layers),
            ],
        )
    others = [layer for layer in found.layers if not layer.recorded and layer.name not in stored]
    yield Check.of(
        GROUP,
        "other layers",
        f"{plural(len(others), 'linear layer')} without a record",
        [_unrecorded(folder, others, found.layers), _patternless(folder, others)],
    )


def _stored_masks(folder: Path) -> dict[str, bool]:
    """Layers with a stored mask, and whether the mask fits the recorded pattern."""
    checkpoint = open_checkpoint(folder)
    masks = StoredMasks(checkpoint)
    recorded = checkpoint.config.recorded_pattern
    return {
        layer.name: recorded is None or is_whole(masks.read(layer), recorded)
        for layer in checkpoint.linear_layers(("encoder", "pooler", "head"))
        if layer.name in masks
    }


def _held(pattern: str | None, recorded: list[LayerReport]) -> str:
    if not recorded or pattern is None:
        return "none is recorded"
    groups = sum(_groups(layer) for layer in recorded)
    whole = sum(layer.whole for layer in recorded)
    return (
        f"{pattern} holds in {whole} of {plural(len(recorded), 'layer')} "
        f"({groups:,} {_noun(pattern)})"
    )


def _groups(layer: LayerReport) -> int:
    return Pattern.parse(str(layer.recorded)).groups(layer.rows, layer.columns)


def _noun(pattern: str | None) -> str:
    m = Pattern.parse(str(pattern)).m
    return "pairs" if m == 2 else f"groups of {m}"


def _broken(folder: Path, layers: list[LayerReport]) -> Finding | None:
    broken = [layer for layer in layers if layer.broken_groups]
    if not broken:
        return None
    count = sum(layer.broken_groups for layer in broken)
    total = sum(_groups(layer) for layer in broken)
    noun = _noun(broken[0].recorded)
    return BROKEN_PATTERN.at(
        folder,
        f"{plural(len(broken), 'layer')} no longer "
        f"{'holds' if len(broken) == 1 else 'hold'} {broken[0].recorded}: "
        f"{share(count, total)} of their {noun} have too many non-zeros.",
        count=count,
        total=total,
        examples=(
            f"{layer.name}: {share(layer.broken_groups, _groups(layer))} {noun}" for layer in broken
        ),
    )


def _revived(
    folder: Path, layers: tuple[LayerReport, ...], stored: dict[str, bool]
) -> Finding | None:
    # A mask that does not fit the record cannot tell which weights were revived.
    revived = [layer for layer in layers if layer.revived and stored.get(layer.name)]
    if not revived:
        return None
    count = sum(layer.revived for layer in revived)
    return REVIVED_WEIGHTS.at(
        folder,
        f"{count:,} weights that {MASKS_NAME} marks as pruned are not zero, in "
        f"{plural(len(revived), 'layer')}.",
        count=count,
        examples=(
            f"{layer.name}: {plural(layer.revived, 'weight')}{_in_groups(layer)}"
            for layer in revived
        ),
    )


def _in_groups(layer: LayerReport) -> str:
    if layer.recorded is None:
        return ""
    groups = share(layer.broken_groups, _groups(layer))
    return f", {groups} {_noun(layer.recorded)} broken"


def _mismatched(folder: Path, stored: dict[str, bool], pattern: str | None) -> Finding | None:
    wrong = [name for name, fits in stored.items() if not fits]
    if not wrong:
        return None
    return MASK_MISMATCH.at(
        folder,
        f"{plural(len(wrong), 'stored mask')} of {len(stored)} "
        f"{'does' if len(wrong) == 1 else 'do'} not fit the {pattern} that {CONFIG_NAME} records.",
        count=len(wrong),
        total=len(stored),
        examples=wrong,
    )


def _missing(folder: Path, recorded: list[LayerReport], stored: dict[str, bool]) -> Finding | None:
    missing = [layer.name for layer in recorded if layer.name not in stored]
    if not missing:
        return None
    return MASK_MISSING.at(
        folder,
        f"{plural(len(missing), 'layer')} of {len(recorded)} that {CONFIG_NAME} records as pruned "
        f"{'has' if len(missing) == 1 else 'have'} no stored mask.",
        count=len(missing),
        total=len(recorded),
        examples=missing,
    )


def _not_recorded(
    folder: Path,
    recorded: list[LayerReport],
    stored: dict[str, bool],
    layers: Sequence[LayerReport],
) -> Finding | None:
    names = {layer.name for layer in recorded}
    extra = [name for name in stored if name not in names]
    if not extra:
        return None
    return MASK_NOT_RECORDED.at(
        folder,
        f"{plural(len(extra), 'stored mask')} "
        f"{'belongs to a layer' if len(extra) == 1 else 'belong to layers'} that {CONFIG_NAME} "
        "does not record as pruned.",
        count=len(extra),
        total=len(stored),
        examples=extra,
        further=_recording(extra, layers),
    )


def _recording(wanted: Collection[str], layers: Sequence[LayerReport]) -> str:
    """How to record the ``wanted`` layers without changing a weight, if pruning can do that."""
    parts = dict.fromkeys(layer.part for layer in layers if layer.name in wanted)
    patterns = {
        layer.recorded or layer.pattern for layer in layers if layer.recorded or layer.part in parts
    }
    named = patterns.pop() if len(patterns) == 1 else None
    if named is None:
        return (
            f"Do not use `sparsebert prune` for that: not all layers of the {' and '.join(parts)} "
            "have the one pattern that a model can record, so it would change weights."
        )
    pattern = Pattern.parse(named)
    options = f"--pattern {pattern.ratio} --parts {','.join(parts)}"
    if pattern.shared_rows > 1:
        options += f" --shared-rows {pattern.shared_rows}"
    return f"`sparsebert prune {options}` writes the record, and leaves these layers unchanged."


def _unrecorded(
    folder: Path, others: list[LayerReport], layers: Sequence[LayerReport]
) -> Finding | None:
    sparse = [layer for layer in others if layer.pattern]
    if not sparse:
        return None
    return UNRECORDED_PATTERN.at(
        folder,
        f"{plural(len(sparse), 'layer')} {'is' if len(sparse) == 1 else 'are'} sparse, but "
        f"{CONFIG_NAME} does not say so.",
        count=len(sparse),
        total=len(others),
        examples=(f"{layer.name}: {layer.pattern}" for layer in sparse),
        further=_recording([layer.name for layer in sparse], layers),
    )


def _patternless(folder: Path, others: list[LayerReport]) -> Finding | None:
    odd = [layer for layer in others if not layer.pattern and layer.zeros >= _MANY_ZEROS]
    if not odd:
        return None
    return ZEROS_WITHOUT_PATTERN.at(
        folder,
        f"{plural(len(odd), 'layer')} {'has' if len(odd) == 1 else 'have'} many zeros, but no "
        f"record, and they fit none of {', '.join(map(str, KNOWN_PATTERNS))}.",
        count=len(odd),
        total=len(others),
        examples=(f"{layer.name}: {layer.zeros:.1%} zeros" for layer in odd),
    )
