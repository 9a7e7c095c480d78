"""Packing a model folder, one tensor in memory at a time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsebert.checkpoint.architecture import PARTS
from sparsebert.checkpoint.card import write_card
from sparsebert.checkpoint.companions import copy_companions
from sparsebert.checkpoint.config import write_config
from sparsebert.checkpoint.dtypes import Array
from sparsebert.checkpoint.folder import PACKED_NAME, Checkpoint, open_checkpoint
from sparsebert.checkpoint.lineage import with_step
from sparsebert.checkpoint.masks import MASKS_NAME, StoredMasks, layer_mask
from sparsebert.checkpoint.staging import check_output, staged_folder
from sparsebert.checkpoint.tensors import TensorSpec
from sparsebert.checkpoint.writing import write_tensors
from sparsebert.errors import CheckpointError
from sparsebert.packing.dtypes import ValueType, get_value_type
from sparsebert.packing.format import (
    METADATA_KEY,
    CompressedEntry,
    bits_name,
    format_metadata,
    values_name,
)
from sparsebert.patterns import (
    ONE_OF_TWO,
    Pattern,
    compress,
    compressed_shapes,
    pack_mask,
    unpack_mask,
)
from sparsebert.progress import Progress, silent


@dataclass(frozen=True)
class _Sparse:
    pattern: Pattern
    mask: Array  # one bit a weight: all layers' masks together stay small


def pack(
    model: str | Path,
    out: str | Path,
    *,
    dtype: str = "fp32",
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write ``model`` to the folder ``out`` in packed form.

    Every linear layer whose zeros fit a pattern is compressed, whether or not the folder records
    it; all other tensors go along. ``dtype`` "fp32" stores values as the source does (see
    `dtypes.Float32Values`), and unpacks to the same bytes, save that a pruned -0.0 comes back as
    +0.0; "fp16" rounds matrices to float16.

    Returns counts, sizes and seconds. Raises PatternError if a recorded pattern is broken,
    CheckpointError for a damaged model (NaN and infinity included) or values beyond float16's
    range, OutputError if ``out`` cannot be written.
    """
    began = time.perf_counter()
    check_output(out, force=force)
    values = get_value_type(dtype)
    checkpoint = open_checkpoint(model)
    report = progress or silent
    with staged_folder(out, force=force, source=checkpoint.path) as staging:
        sparse = _find_sparse(checkpoint, report)
        entries = _entries(checkpoint, sparse)
        specs = _specs(checkpoint, sparse, values)
        metadata = {
            key: text for key, text in checkpoint.tensors.metadata.items() if key != METADATA_KEY
        }
        metadata.update(format_metadata(dtype, entries))
        arrays = _arrays(checkpoint, sparse, values, report)
        write_tensors(staging / PACKED_NAME, specs, arrays, metadata)
        raw = with_step(checkpoint.config.raw, "pack", checkpoint.source, {"dtype": dtype})
        write_config(staging, raw)
        copy_companions(checkpoint.path, staging)
        (staging / MASKS_NAME).unlink(missing_ok=True)
        write_card(staging, source=checkpoint.path, packed=True)
        size = (staging / PACKED_NAME).stat().st_size
    counts = Counter(str(layer.pattern) for layer in sparse.values())
    return {
        "out": str(out),
        "dtype": dtype,
        "compressed": len(sparse),
        "dense": len(checkpoint.linear_layers(PARTS)) - len(sparse),
        "patterns": dict(sorted(counts.items())),
        "source_bytes": checkpoint.tensors.nbytes,
        "bytes": size,
        "seconds": round(time.perf_counter() - began, 3),
    }


def _find_sparse(checkpoint: Checkpoint, report: Progress) -> dict[str, _Sparse]:
    """The layers to compress, by canonical name."""
    stored = StoredMasks(checkpoint)
    layers = checkpoint.linear_layers(PARTS)
    sparse = {}
    for done, layer in enumerate(layers):
        report("reading zeros", done, len(layers))
        weight = checkpoint.finite_weight(layer.name)
        found = layer_mask(checkpoint, layer, stored, weight)
        if found is not None:
            sparse[layer.name] = _Sparse(found[0], pack_mask(found[1]))
    report("reading zeros", len(layers), len(layers))
    return sparse


def _entries(checkpoint: Checkpoint, sparse: dict[str, _Sparse]) -> dict[str, CompressedEntry]:
    entries = {}
    for name, layer in sparse.items():
        stored = checkpoint.stored_name[name]
        rows, columns = checkpoint.tensors.spec(stored).shape
        entries[stored] = CompressedEntry((rows, columns), layer.pattern)
        for part in (values_name(stored), bits_name(stored)):
            if part in checkpoint.tensors:
                raise CheckpointError(
                    f"{checkpoint.path} has a tensor named '{part}', a name that packing needs."
                )
    return entries


def _order(checkpoint: Checkpoint) -> list[str]:
    """Names as stored, in the order the model computes in; extras last."""
    used = [checkpoint.stored_name[name] for name in checkpoint.used]
    known = set(used)
    return used + [name for name in checkpoint.tensors if name not in known]


def _specs(
    checkpoint: Checkpoint, sparse: dict[str, _Sparse], values: ValueType
) -> list[TensorSpec]:
    canonical = {checkpoint.stored_name[name]: name for name in checkpoint.used}
    specs = []
    for stored in _order(checkpoint):
        spec = checkpoint.tensors.spec(stored)
        if stored not in canonical:
            specs.append(spec)
            continue
        dtype = values.stored_as(spec.dtype, len(spec.shape))
        layer = sparse.get(canonical[stored])
        if layer is None:
            specs.append(TensorSpec(stored, dtype, spec.shape))
            continue
        values_shape, bits_shape, _ = compressed_shapes(layer.pattern, *spec.shape)
        words = "U32" if layer.pattern == ONE_OF_TWO else "U64"
        specs.append(TensorSpec(values_name(stored), dtype, values_shape))
        specs.append(TensorSpec(bits_name(stored), words, bits_shape))
    return specs


def _arrays(
    checkpoint: Checkpoint, sparse: dict[str, _Sparse], values: ValueType, report: Progress
) -> Iterator[Array]:
    canonical = {checkpoint.stored_name[name]: name for name in checkpoint.used}
    order = _order(checkpoint)
    for done, stored in enumerate(order):
        report("packing", done, len(order))
        spec, raw = checkpoint.tensors.spec(stored), checkpoint.tensors[stored]
        if stored not in canonical:
            yield raw
            continue
        name = canonical[stored]
        layer = sparse.get(name)
        if layer is None:
            checkpoint.finite_weight(name)
            yield values.encode(raw, spec.dtype, len(spec.shape), stored)
            continue
        mask = unpack_mask(layer.mask, spec.shape[1])
        # Outside the mask stand only zeros, but a -0.0 in raw bfloat16 words is not 0.
        packed = compress(np.where(mask, raw, raw.dtype.type(0)), layer.pattern, mask)
        yield values.encode(packed.values, spec.dtype, 2, stored)
        yield packed.bits
    report("packing", len(order), len(order))
