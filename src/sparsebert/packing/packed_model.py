"""Opening a packed folder: the engine's weights are views of the mapped file, nothing decoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sparsebert.checkpoint.architecture import canonical_names, check_shapes, linear_names
from sparsebert.checkpoint.config import CONFIG_NAME, EncoderConfig, parse_config
from sparsebert.checkpoint.documents import read_object
from sparsebert.checkpoint.dtypes import WEIGHT_TYPES, Array, widen
from sparsebert.checkpoint.folder import PACKED_NAME, check_recorded_layers
from sparsebert.checkpoint.hub import resolve_model, source_name
from sparsebert.checkpoint.pooling import Pooling, read_pooling
from sparsebert.errors import CheckpointError
from sparsebert.packing.format import PackedFile, open_packed_file
from sparsebert.patterns import Compressed


@dataclass(frozen=True, eq=False)
class PackedModel:
    """An open packed folder.

    ``weights`` are what the engine computes with, by canonical name: compressed matrices, dense
    matrices in float32 or float16, vectors in float32. ``stored_name`` maps canonical names to
    those in the file, ``used`` are the names in computing order, ``dtype`` is the packing's own.
    """

    path: Path
    source: str
    config: EncoderConfig
    pooling: Pooling | None
    dtype: str
    file: PackedFile = field(repr=False)
    stored_name: dict[str, str] = field(repr=False)
    used: tuple[str, ...] = field(repr=False)
    weights: dict[str, Array | Compressed] = field(repr=False)


def is_packed(folder: str | Path) -> bool:
    """Whether a folder holds a packed model."""
    return (Path(folder) / PACKED_NAME).is_file()


def open_packed(model: str | Path) -> PackedModel:
    """Open a packed folder (or hub id); CheckpointError for one that is not, or is damaged.

    Every field of the file is checked, and every compressed matrix's bits, so that no weight can
    point outside its layer. Values are not read: a page is loaded when the engine first uses it.
    """
    path = resolve_model(model)
    if not (path / CONFIG_NAME).is_file():
        raise CheckpointError(f"{path} is not a model folder: it has no {CONFIG_NAME}.")
    if not is_packed(path):
        raise CheckpointError(f"{path} is not a packed model: it has no {PACKED_NAME}.")
    raw = read_object(path / CONFIG_NAME)
    parse_config(raw, (), path / CONFIG_NAME)
    file = open_packed_file(path / PACKED_NAME)
    stored_name = canonical_names((*file.compressed, *file.plain), file.path)
    config = parse_config(raw, stored_name, path / CONFIG_NAME)
    shapes = {name: file.shape(stored) for name, stored in stored_name.items()}
    used = check_shapes(config, shapes, file.path)
    check_recorded_layers(config, path)
    layers = linear_names(config)
    for name in used:
        if stored_name[name] in file.compressed and name not in layers:
            raise CheckpointError(f"{file.path}: '{name}' is compressed, but is no linear layer.")
    weights = {name: _engine_form(file, stored_name[name]) for name in used}
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
    )


def _engine_form(file: PackedFile, stored: str) -> Array | Compressed:
    dtype = file.value_dtype(stored)
    if dtype not in WEIGHT_TYPES:
        raise CheckpointError(f"{file.path}: weight '{stored}' is stored as {dtype}.")
    if stored in file.compressed:
        packed = file.matrix(stored)
        if dtype != "BF16":
            return packed
        return Compressed(packed.pattern, packed.columns, widen(packed.values, dtype), packed.bits)
    values = file.tensors[stored]
    if dtype == "BF16" or values.ndim != 2:
        return widen(values, dtype)
    return values
