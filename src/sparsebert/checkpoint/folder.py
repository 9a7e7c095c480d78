"""Opening and validating a dense or sparse model folder."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from sparsebert.checkpoint.architecture import (
    LinearLayer,
    canonical_names,
    check_shapes,
    expected_shapes,
    linear_names,
    optional_shapes,
)
from sparsebert.checkpoint.config import CONFIG_NAME, EncoderConfig, parse_config, read_family
from sparsebert.checkpoint.dtypes import WEIGHT_TYPES, Float32, check_finite, widen
from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.hub import resolve_model, source_name
from sparsebert.checkpoint.hub_configs import read_config
from sparsebert.checkpoint.hub_layouts import family_tensors
from sparsebert.checkpoint.modules import transformer_folder
from sparsebert.checkpoint.pooling import Pooling, read_pooling
from sparsebert.checkpoint.tensors import INDEX_NAME, PACKED_NAME, WEIGHTS_NAME, TensorFiles
from sparsebert.errors import CheckpointError, reading

PICKLE_NAME = "pytorch_model.bin"
PICKLE_INDEX_NAME = "pytorch_model.bin.index.json"
_ADAPTER_NAME = "adapter_config.json"  # transformers applies the adapter to the weights beside it


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """An open model folder. Its tensors are views of the files: nothing is loaded until read.

    ``path`` is the folder itself; ``transformer`` is where its config.json, weights and tokenizer
    are (the same folder, except in some sentence-transformers folders). ``stored_name`` maps a
    canonical tensor name to its name in the file, extras included; ``used`` are the canonical names
    of the tensors the model computes with. ``source`` is this model's name in a lineage;
    ``pooling`` is that of a sentence-transformers folder.
    """

    path: Path
    transformer: Path
    source: str
    config: EncoderConfig
    pooling: Pooling | None
    tensors: TensorFiles = field(repr=False)
    stored_name: dict[str, str] = field(repr=False)
    used: tuple[str, ...] = field(repr=False)

    def weight(self, canonical: str) -> Float32:
        """A tensor as float32: a read-only view if stored so, else a widened copy."""
        stored = self.stored_name[canonical]
        return widen(self.tensors[stored], self.tensors.spec(stored).dtype)

    def finite_weight(self, canonical: str) -> Float32:
        """`weight`, checked: CheckpointError names the tensor if it contains NaN or infinity."""
        values = self.weight(canonical)
        check_finite(self.stored_name[canonical], values, self.path)
        return values

    def linear_layers(self, parts: Collection[str] = ("encoder",)) -> list[LinearLayer]:
        """The linear layers of ``parts`` ("encoder", "pooler", "head") in order of computation."""
        layers = []
        for name, part in linear_names(self.config).items():
            if part in parts and name in self.stored_name:
                stored = self.stored_name[name]
                rows, columns = self.tensors.spec(stored).shape
                layers.append(LinearLayer(name, stored, part, rows, columns))
        return layers


def open_checkpoint(model: str | Path, *, copied: bool = False) -> Checkpoint:
    """Open a dense or sparse folder, or download and open a hub id; see `TensorFiles` for
    ``copied``.

    Raises CheckpointError (UnsupportedArchitectureError for other kinds of models) naming the file,
    key or tensor that is wrong. The weights' values are not checked: see `finite_weight`.
    """
    with reading(model, CheckpointError):
        return _open(model, copied)


def _open(model: str | Path, copied: bool) -> Checkpoint:
    path = resolve_model(model)
    transformer = transformer_folder(path)
    _check_files(transformer, model)
    raw = read_config(transformer)
    family = read_family(raw, transformer / CONFIG_NAME)
    tensors = family_tensors(TensorFiles.of_folder(transformer, copied=copied), family)
    stored_name = canonical_names(tensors, family, transformer)
    config = parse_config(raw, stored_name, transformer / CONFIG_NAME)
    shapes = {name: tensors.spec(stored).shape for name, stored in stored_name.items()}
    used = check_shapes(config, shapes, transformer)
    for name in used:
        dtype = tensors.spec(stored_name[name]).dtype
        if dtype not in WEIGHT_TYPES:
            raise CheckpointError(
                f"{transformer}: tensor '{stored_name[name]}' is stored as {dtype}; weights must "
                f"be stored as one of {', '.join(WEIGHT_TYPES)}."
            )
    check_recorded_layers(config, transformer)
    return Checkpoint(
        path,
        transformer,
        source_name(model),
        config,
        read_pooling(path),
        tensors,
        stored_name,
        used,
    )


def check_recorded_layers(config: EncoderConfig, folder: Path) -> None:
    """Raise CheckpointError if config.json records a pattern for a layer that cannot have it."""
    known = linear_names(config)
    pattern = config.recorded_pattern
    shapes = {**expected_shapes(config), **optional_shapes(config)}
    for name in config.recorded_layers:
        if name not in known:
            raise CheckpointError(
                f"{folder / CONFIG_NAME}: 'sparsity' names '{name}', which is not a linear layer "
                "of this model."
            )
        if pattern is not None and shapes[name][1] % pattern.m:
            raise CheckpointError(
                f"{folder / CONFIG_NAME}: 'sparsity' records the pattern {pattern} for '{name}', "
                f"whose {shapes[name][1]} inputs are not divisible by {pattern.m}."
            )


def _check_files(folder: Path, model: str | Path) -> None:
    if not has_file(folder / CONFIG_NAME):
        raise CheckpointError(f"{folder} is not a model folder: it has no {CONFIG_NAME}.")
    if has_file(folder / _ADAPTER_NAME):
        raise CheckpointError(
            f"{folder} has a PEFT adapter ({_ADAPTER_NAME}), which sparsebert does not apply: "
            "merge it into the model (merge_and_unload) and save the whole model."
        )
    if has_file(folder / WEIGHTS_NAME) or has_file(folder / INDEX_NAME):
        return
    if has_file(folder / PACKED_NAME):
        raise CheckpointError(
            f"{folder} is a packed model: run `sparsebert unpack {model} OUT` first, or pass the "
            "folder it was packed from."
        )
    pickles = has_file(folder / PICKLE_NAME) or has_file(folder / PICKLE_INDEX_NAME)
    if pickles or not Path(model).is_dir():  # pickles are not downloaded from the hub
        raise CheckpointError(
            f"{model} has no {WEIGHTS_NAME}: if its weights are in an old {PICKLE_NAME}, run "
            f"`sparsebert convert {model} OUT` once and use OUT."
        )
    raise CheckpointError(
        f"{folder} has no weights: it has neither {WEIGHTS_NAME} nor {INDEX_NAME}."
    )
