"""Packing a model folder, one tensor in memory at a time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.architecture import PARTS
from sparsebert.checkpoint.auxiliary_files import write_auxiliary_files
from sparsebert.checkpoint.card import write_card
from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.checkpoint.dtypes import Array
from sparsebert.checkpoint.folder import Checkpoint, open_checkpoint
from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.masks import StoredMasks
from sparsebert.checkpoint.model_files import TRAINING_NAME
from sparsebert.checkpoint.sparsity import read_sparsity, with_step
from sparsebert.checkpoint.staging import check_output, staged_folder
from sparsebert.checkpoint.tensors import PACKED_NAME, TensorSpec
from sparsebert.checkpoint.writing import write_tensors
from sparsebert.errors import CheckpointError, OutputError
from sparsebert.packing.answers import renew_checksums
from sparsebert.packing.dtypes import Roles, Source, ValueType, get_value_type
from sparsebert.packing.format import METADATA_KEY, format_metadata, part_name
from sparsebert.packing.forms import Form, PlainForm, parts_of
from sparsebert.patterns import Pattern, pack_mask, unpack_mask
from sparsebert.progress import Progress, shown


@dataclass(frozen=True)
class PackResult:
    """The result of `pack`.

    ``compressed`` is the number of linear layers that are stored without their zeros, ``patterns``
    counts these by pattern, and ``dense`` is the number of layers stored with every weight.
    ``bytes`` is the size of packed.safetensors, ``source_bytes`` that of the source's tensors.
    """

    out: str
    dtype: str
    compressed: int
    dense: int
    patterns: dict[str, int]
    source_bytes: int
    bytes: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """All fields as a dict, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Sparse:
    pattern: Pattern
    mask: Array  # one bit per weight, so that all layers' masks together stay small


def pack(
    model: str | Path,
    out: str | Path,
    *,
    dtype: str = "fp32",
    compress: bool = True,
    force: bool = False,
    progress: Progress | None = None,
) -> PackResult:
    """Write ``model`` to the folder ``out`` in packed form.

    Every linear layer is compressed that the folder records as pruned, or whose zeros fit 1:3, 1:2,
    2:4 or 4:8; all other tensors are included too. ``dtype`` is one of:

    - "fp32": values keep the source's dtype (see `dtypes.Float32Values`), and `unpack` gives back
      the same bytes, except that a pruned -0.0 becomes +0.0;
    - "fp16": matrices are rounded to float16;
    - "int8": linear layers and embedding tables are rounded to int8, with one scale per row.

    Without ``compress``, zeros are stored like any other weight, which shows what leaving them out
    saves; `unpack` then writes no masks, and later steps derive them from the zeros.

    Raises PatternError if a recorded pattern is broken, CheckpointError for a damaged model
    (including NaN and infinity) or values beyond float16's range, and OutputError if ``out`` cannot
    be written.
    """
    began = time.perf_counter()
    check_output(out, force=force)
    values = get_value_type(dtype)
    checkpoint = open_checkpoint(model)
    report = shown(progress)
    with staged_folder(out, force=force, source=checkpoint.path) as staging:
        sparse = _find_sparse(checkpoint, report) if compress else {}
        forms = _forms(checkpoint, sparse, values)
        metadata = {
            key: text for key, text in checkpoint.tensors.metadata.items() if key != METADATA_KEY
        }
        metadata.update(format_metadata(dtype, forms))
        arrays = _arrays(checkpoint, sparse, forms, report)
        write_tensors(staging / PACKED_NAME, _specs(forms), arrays, metadata)
        raw = with_step(
            checkpoint.config.raw, "pack", checkpoint.source, _arguments(dtype, compress)
        )
        write_auxiliary_files(staging, raw, source=checkpoint.path)
        write_card(staging, source=checkpoint.path, packed=True)
        renew_checksums(staging)
        size = (staging / PACKED_NAME).stat().st_size
    counts = Counter(str(form.pattern) for form in forms.values() if form.pattern is not None)
    compressed = counts.total()
    return PackResult(
        out=str(out),
        dtype=dtype,
        compressed=compressed,
        dense=len(checkpoint.linear_layers(PARTS)) - compressed,
        patterns=dict(sorted(counts.items())),
        source_bytes=checkpoint.tensors.nbytes,
        bytes=size,
        seconds=round(time.perf_counter() - began, 3),
    )


def check_packed_from(model: Path, packed: Path, *, dtype: str, compress: bool) -> None:
    """OutputError unless the records show that `pack` made ``packed`` from ``model`` this way.

    Both folders have the same lineage before packing, and the same training.json, which differs if
    the model has been trained again since then.
    """
    lineages = []
    for folder in (model, packed):
        where = folder / CONFIG_NAME
        record = read_sparsity(read_object(where), where) if where.is_file() else None
        lineages.append((record or {}).get("lineage", []))
    before, (*steps, last) = lineages[0], lineages[1] or [{}]
    if (last.get("step"), last.get("arguments")) != ("pack", _arguments(dtype, compress)):
        raise OutputError(
            f"{packed} was packed with other options, or not at all: choose another folder, or "
            "pass --force (force=True) to pack again."
        )
    if steps != before:
        raise OutputError(
            f"{packed} was packed from another model than {model}: choose another folder, or pass "
            "--force (force=True) to pack again."
        )
    trainings = [folder / TRAINING_NAME for folder in (model, packed)]
    before_packing, now = (path.read_bytes() if path.is_file() else b"" for path in trainings)
    if before_packing != now:
        raise OutputError(
            f"{model} has been trained again since {packed} was packed: pass --force (force=True) "
            "to pack again."
        )


def _arguments(dtype: str, compress: bool) -> dict[str, Any]:
    """The arguments of `pack` that the lineage records."""
    return {"dtype": dtype, **({} if compress else {"compress": False})}


def _find_sparse(checkpoint: Checkpoint, report: Progress) -> dict[str, _Sparse]:
    """The layers to compress, by canonical name."""
    stored = StoredMasks(checkpoint)
    layers = checkpoint.linear_layers(PARTS)
    sparse = {}
    for done, layer in enumerate(layers):
        report("reading zeros", done, len(layers))
        found = stored.find(layer, checkpoint.finite_weight(layer.name))
        if found is not None:
            sparse[layer.name] = _Sparse(found.pattern, pack_mask(found.mask))
    report("reading zeros", len(layers), len(layers))
    return sparse


def _forms(
    checkpoint: Checkpoint, sparse: dict[str, _Sparse], values: ValueType
) -> dict[str, Form]:
    """The form of each tensor by its stored name, in the order of computation; extras last."""
    roles = Roles(checkpoint.config)
    forms: dict[str, Form] = {}
    for name in checkpoint.used:
        spec = checkpoint.tensors.spec(checkpoint.stored_name[name])
        role = roles.of(name, len(spec.shape))
        pattern = sparse[name].pattern if name in sparse else None
        forms[spec.name] = form = values.form(Source(spec.dtype, spec.shape, role, pattern))
        for part in form.parts():
            if part and part_name(spec.name, part) in checkpoint.tensors:
                raise CheckpointError(
                    f"{checkpoint.path} has a tensor named '{part_name(spec.name, part)}', a name "
                    "that packing uses itself: rename the tensor or remove it."
                )
    for stored in checkpoint.tensors:
        spec = checkpoint.tensors.spec(stored)
        forms.setdefault(stored, PlainForm(spec.shape, spec.dtype))
    return forms


def _specs(forms: dict[str, Form]) -> list[TensorSpec]:
    return [
        TensorSpec(part_name(stored, part), *wanted)
        for stored, form in forms.items()
        for part, wanted in form.parts().items()
    ]


def _arrays(
    checkpoint: Checkpoint, sparse: dict[str, _Sparse], forms: dict[str, Form], report: Progress
) -> Iterator[Array]:
    canonical = {checkpoint.stored_name[name]: name for name in checkpoint.used}
    for done, (stored, form) in enumerate(forms.items()):
        report("packing", done, len(forms))
        spec, raw = checkpoint.tensors.spec(stored), checkpoint.tensors[stored]
        mask = None
        if stored in canonical:
            name = canonical[stored]
            if name not in sparse:  # the others were checked when their zeros were found
                checkpoint.finite_weight(name)
            elif form.pattern is not None:
                mask = unpack_mask(sparse[name].mask, spec.shape[1])
        parts = parts_of(form.make(raw, spec.dtype, mask, stored))
        yield from (parts[part] for part in form.parts())
    report("packing", len(forms), len(forms))
