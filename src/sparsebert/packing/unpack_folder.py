"""Unpacking: from a packed folder back to an ordinary Hugging Face folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.auxiliary_files import write_auxiliary_files
from sparsebert.checkpoint.card import write_card
from sparsebert.checkpoint.dtypes import Array, widen
from sparsebert.checkpoint.masks import write_mask_bits
from sparsebert.checkpoint.sparsity import with_step
from sparsebert.checkpoint.staging import check_output, staged_folder
from sparsebert.checkpoint.tensors import WEIGHTS_NAME, TensorSpec
from sparsebert.checkpoint.writing import write_tensors
from sparsebert.packing.dtypes import get_value_type
from sparsebert.packing.format import METADATA_KEY
from sparsebert.packing.forms import kept_mask, to_dense
from sparsebert.packing.packed_model import PackedModel, open_packed
from sparsebert.patterns import pack_mask
from sparsebert.progress import Progress, shown


@dataclass(frozen=True)
class UnpackResult:
    """The result of `unpack`.

    ``dtype`` is that of the packed folder; ``exact`` says whether the tensors are those that were
    packed, byte for byte. ``decompressed`` is the number of layers with a pattern, and ``bytes``
    the size of model.safetensors.
    """

    out: str
    dtype: str
    exact: bool
    decompressed: int
    tensors: int
    bytes: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """All fields as a dict, ready for JSON."""
        return asdict(self)


def unpack(
    model: str | Path, out: str | Path, *, force: bool = False, progress: Progress | None = None
) -> UnpackResult:
    """Write the packed ``model`` to the folder ``out`` as config, safetensors and masks.

    A folder packed as fp32 gives back the source's tensors byte for byte, including those that the
    model does not use (but a pruned weight stored as -0.0 becomes +0.0). One packed as fp16 or int8
    gives the rounded values as float32, and its masks still mark kept weights that were rounded to
    zero. Raises CheckpointError for a folder that is not packed or is damaged, and OutputError if
    ``out`` cannot be written.
    """
    began = time.perf_counter()
    check_output(out, force=force)
    packed = open_packed(model)
    exact = get_value_type(packed.dtype).exact
    with staged_folder(out, force=force, source=packed.path) as staging:
        specs = _specs(packed, exact)
        masks: dict[str, Array] = {}
        arrays = _arrays(packed, specs, masks, shown(progress))
        metadata = {k: v for k, v in packed.file.tensors.metadata.items() if k != METADATA_KEY}
        write_tensors(staging / WEIGHTS_NAME, specs, arrays, {"format": "pt", **metadata})
        if masks:
            write_mask_bits(staging, masks)
        arguments = {"dtype": packed.dtype, "exact": exact}
        raw = with_step(packed.config.raw, "unpack", packed.source, arguments)
        for key in ("dtype", "torch_dtype"):
            if not exact and key in raw:  # the source's type, to which transformers would convert
                raw[key] = "float32"
        write_auxiliary_files(staging, raw, source=packed.path)
        write_card(staging, source=packed.path)
        size = (staging / WEIGHTS_NAME).stat().st_size
    return UnpackResult(
        out=str(out),
        dtype=packed.dtype,
        exact=exact,
        decompressed=len(masks),
        tensors=len(specs),
        bytes=size,
        seconds=round(time.perf_counter() - began, 3),
    )


def _specs(packed: PackedModel, exact: bool) -> list[TensorSpec]:
    used = {packed.stored_name[name] for name in packed.used}
    specs = []
    for name, form in packed.file.forms.items():
        restored = form.dtype if exact or name not in used else "F32"
        specs.append(TensorSpec(name, restored, form.shape))
    return specs


def _arrays(
    packed: PackedModel, specs: list[TensorSpec], masks: dict[str, Array], report: Progress
) -> Iterator[Array]:
    """The dense tensors one by one; adds packed bits to ``masks``, by canonical name."""
    file = packed.file
    canonical = {stored: name for name, stored in packed.stored_name.items()}
    for done, spec in enumerate(specs):
        report("unpacking", done, len(specs))
        weight, stored = file.weight(spec.name), file.forms[spec.name].dtype
        mask = kept_mask(weight)
        if mask is not None:
            masks[canonical[spec.name]] = pack_mask(mask)
        values = to_dense(weight)
        yield values if stored == spec.dtype else widen(values, stored)
    report("unpacking", len(specs), len(specs))
