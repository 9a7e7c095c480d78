"""Opening a packed folder: weights are views of its file, without decoding."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sparsebert.checkpoint.architecture import canonical_names, check_shapes
from sparsebert.checkpoint.config import CONFIG_NAME, EncoderConfig, parse_config, read_family
from sparsebert.checkpoint.dtypes import WEIGHT_TYPES, check_finite, widen
from sparsebert.checkpoint.folder import check_recorded_layers
from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.hub import resolve_model, source_name
from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.pooling import Pooling, read_pooling
from sparsebert.checkpoint.tensors import PACKED_NAME, TensorFiles
from sparsebert.compressed import Compressed
from sparsebert.errors import CheckpointError, reading
from sparsebert.packing.checksums import Checksums, read_checksums
from sparsebert.packing.dtypes import VALUE_TYPES, Role, Roles, Source
from sparsebert.packing.format import PackedFile, open_packed_file
from sparsebert.packing.forms import Form, PlainForm, QuantizedForm, Weight, parts_of
from sparsebert.quantized import QuantizedTable


@dataclass(frozen=True, eq=False)
class PackedModel:
    """An open packed folder.

    ``weights`` are what the engine computes with, by canonical name: compressed or quantized
    matrices, dense ones in float32 or float16, vectors in float32. ``stored_name`` maps canonical
    names to those in the file, ``used`` are the canonical names in the order of computation,
    ``dtype`` is the one that the model was packed as. ``checksums`` are those that the folder was
    checked against; None if it was not.
    """

    path: Path
    source: str
    config: EncoderConfig
    pooling: Pooling | None
    dtype: str
    file: PackedFile = field(repr=False)
    stored_name: dict[str, str] = field(repr=False)
    used: tuple[str, ...] = field(repr=False)
    weights: dict[str, Weight] = field(repr=False)
    checksums: Checksums | None = field(repr=False)


def is_packed(folder: str | Path) -> bool:
    """Whether a folder holds a packed model."""
    return has_file(Path(folder) / PACKED_NAME)


def open_packed(model: str | Path, *, copied: bool = False, as_it_is: bool = False) -> PackedModel:
    """Open a packed folder (or hub id); CheckpointError for one that is not, or is damaged.

    All files are read and checked against the checksums, unless there are none or the folder is
    opened ``as_it_is``. Every field of the file and the bits of every compressed matrix are checked
    too, so that no weight can point outside its layer; without checksums, so are NaN and infinity.
    The file is memory-mapped, or ``copied`` into memory.
    """
    with reading(model, CheckpointError):
        return _open(model, copied, as_it_is)


def _open(model: str | Path, copied: bool, as_it_is: bool) -> PackedModel:
    path = resolve_model(model)
    if not has_file(path / CONFIG_NAME):
        raise CheckpointError(f"{path} is not a model folder: it has no {CONFIG_NAME}.")
    if not is_packed(path):
        raise CheckpointError(f"{path} is not a packed model: it has no {PACKED_NAME}.")
    checksums = None if as_it_is else read_checksums(path)
    if checksums is not None:
        checksums.check_files(path)
    raw = read_object(path / CONFIG_NAME)
    family = read_family(raw, path / CONFIG_NAME)
    tensors = TensorFiles([path / PACKED_NAME], copied=copied)
    if checksums is not None:
        checksums.check_tensors(path, tensors)
    file = open_packed_file(tensors)
    stored_name = canonical_names(file.forms, family, file.path)
    config = parse_config(raw, stored_name, path / CONFIG_NAME)
    shapes = {name: file.forms[stored].shape for name, stored in stored_name.items()}
    used = check_shapes(config, shapes, file.path)
    check_recorded_layers(config, path)
    roles = Roles(config)
    for name, stored in stored_name.items():
        _check_form(file, name, file.forms[stored], roles.of(name, 2))
    for name in used:
        _check_dtype(file, name, file.forms[stored_name[name]], roles)
    weights = {name: _engine_form(file, stored_name[name]) for name in used}
    if checksums is None:  # with checksums, the weights are as finite as when they were packed
        for name, weight in weights.items():
            for part in parts_of(weight).values():
                if np.issubdtype(part.dtype, np.floating):
                    check_finite(stored_name[name], part, file.path)
    return PackedModel(
        path,
        source_name(model),
        config,
        read_pooling(path),
        file.dtype,
        file,
        stored_name,
        used,
        weights,
        checksums,
    )


def _check_form(file: PackedFile, name: str, form: Form, role: Role) -> None:
    """CheckpointError for a form that packing never gives a matrix with this role."""
    if isinstance(form, PlainForm):
        return
    if isinstance(form, QuantizedForm) and form.layout is QuantizedTable:
        if role is not Role.TABLE:
            raise CheckpointError(f"{file.path}: '{name}' is stored as a table, but is a layer.")
    elif role in (Role.TABLE, Role.VECTOR):
        raise CheckpointError(f"{file.path}: '{name}' is compressed, but is not a linear layer.")
    elif role is Role.LAST and isinstance(form, QuantizedForm):
        raise CheckpointError(f"{file.path}: '{name}' is in int8, but is a head's last layer.")


def _check_dtype(file: PackedFile, name: str, form: Form, roles: Roles) -> None:
    """CheckpointError for a tensor that is not stored as the file's dtype requires."""
    role = roles.of(name, len(form.shape))
    wanted = VALUE_TYPES[file.dtype].form(Source(form.dtype, form.shape, role, form.pattern))
    if (type(form), form.dtype) != (type(wanted), wanted.dtype):
        raise CheckpointError(
            f"{file.path} says that it is packed as {file.dtype}, but '{name}' is not: pack the "
            "model again."
        )


def _engine_form(file: PackedFile, stored: str) -> Weight:
    form, weight = file.forms[stored], file.weight(stored)
    if form.dtype not in WEIGHT_TYPES:
        raise CheckpointError(
            f"{file.path}: weight '{stored}' is stored as {form.dtype}, which is not supported."
        )
    if isinstance(weight, Compressed):
        values = weight.values if form.dtype != "BF16" else widen(weight.values, form.dtype)
        return Compressed(weight.pattern, weight.columns, values, weight.bits)
    if isinstance(weight, np.ndarray) and (form.dtype == "BF16" or weight.ndim != 2):
        return widen(weight, form.dtype)
    return weight
