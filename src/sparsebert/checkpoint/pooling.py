"""How a sentence-transformers folder makes one vector of a text's token vectors.

Its modules after the transformer: Pooling, and what may follow it, Dense, LayerNorm and Normalize.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsebert.checkpoint.dtypes import WEIGHT_TYPES, Float32, check_finite, widen
from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.json_files import MOST, read_object
from sparsebert.checkpoint.known_keys import (
    DENSE,
    LAYER_NORM,
    NORMALIZE,
    POOLING,
    SPLADE_POOLING,
)
from sparsebert.checkpoint.sentence_transformers import (
    MODULES_NAME,
    TRANSFORMERS,
    Module,
    read_modules,
    transformer_task,
)
from sparsebert.checkpoint.tensors import WEIGHTS_NAME, TensorFiles
from sparsebert.errors import CheckpointError

# What the library's Pooling module calls a mode, first as since version 5.5, then as before.
_MODES = {
    "mean": "mean",
    "cls": "cls",
    "max": "max",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weightedmean",
    "lasttoken": "lasttoken",
}
_OLD_FLAGS = {  # in the order in which the library concatenates them
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS = {  # of a Dense module, by the end of its torch class
    "Identity": "identity",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
}
LAYER_NORM_EPSILON = 1e-5  # torch's default, which the LayerNorm module keeps


@dataclass(frozen=True)
class PooledLayer:
    """A module behind the pooling: "dense" with an ``activation``, "norm" or "normalize".

    ``folder`` holds its weights.
    """

    kind: str
    folder: Path
    activation: str = "identity"
    inputs: int = 0
    outputs: int = 0
    has_bias: bool = True

    def weights(self) -> dict[str, Float32]:
        """Its tensors in float32: ``weight`` and ``bias``. Raises CheckpointError."""
        if self.kind == "normalize":
            return {}
        dense = self.kind == "dense"
        stem = "linear" if dense else "norm"
        shapes: dict[str, tuple[int, ...]] = {
            "weight": (self.outputs, self.inputs) if dense else (self.outputs,)
        }
        if self.has_bias:
            shapes["bias"] = (self.outputs,)
        file = self.folder / WEIGHTS_NAME
        if not has_file(file):
            raise CheckpointError(
                f"{self.folder} has no {WEIGHTS_NAME}: save the model anew, with a "
                "sentence-transformers of today."
            )
        tensors, found = TensorFiles([file]), {}
        for name, shape in shapes.items():
            stored = f"{stem}.{name}"
            if stored not in tensors:
                raise CheckpointError(f"{file} lacks the tensor '{stored}'.")
            spec = tensors.spec(stored)
            if spec.shape != shape or spec.dtype not in WEIGHT_TYPES:
                raise CheckpointError(
                    f"{file}: tensor '{stored}' is {spec.dtype} {list(spec.shape)}, and "
                    f"config.json asks for floats {list(shape)}."
                )
            values = np.array(widen(tensors[stored], spec.dtype))
            check_finite(stored, values, self.folder)
            found[name] = values
        return found


@dataclass(frozen=True)
class Pooling:
    """From token vectors to an embedding.

    What the ``modes`` give is concatenated: "mean", "cls", "max", "mean_sqrt_len", "weightedmean"
    or "lasttoken". ``layers`` are applied to it, and ``normalize`` scales the end to length 1.
    Without ``include_prompt`` the tokens of a prompt are not pooled. ``unsupported`` says which
    module of the folder sparsebert does not compute; its texts then cannot be embedded.
    """

    modes: tuple[str, ...] = ("mean",)
    normalize: bool = False
    include_prompt: bool = True
    layers: tuple[PooledLayer, ...] = ()
    unsupported: str = ""

    def check(self) -> None:
        """CheckpointError for a folder whose texts cannot be embedded."""
        if self.unsupported:
            raise CheckpointError(self.unsupported)

    def width(self, hidden: int) -> int:
        """Numbers of an embedding of a model with that hidden size."""
        dense = [layer.outputs for layer in self.layers if layer.kind == "dense"]
        return dense[-1] if dense else len(self.modes) * hidden


@dataclass(frozen=True)
class SparsePooling:
    """SPLADE's way from masked-LM logits x to a weight for each token of the vocabulary.

    log(1 + max(x, 0)) of each token of the text, with ``twice`` log(1 + that) again, and of these
    the largest ("max") or the sum ("sum"). Formal et al. 2021, arXiv:2107.05720 and 2109.10086.
    """

    strategy: str = "max"
    twice: bool = False


def read_sparse_pooling(folder: Path) -> SparsePooling:
    """What the folder's SpladePooling module says; the usual without one. CheckpointError."""
    for module in read_modules(folder):
        if module.kind == _SPLADE:
            file = module.folder / "config.json"
            settings = read_object(file)
            SPLADE_POOLING.check(settings, file)
            strategy = settings.get("pooling_strategy", "max")
            activation = settings.get("activation_function", "relu")
            for value, known in (
                (strategy, ("max", "sum")),
                (activation, ("relu", "log1p_relu")),
            ):
                if value not in known:
                    raise CheckpointError(f"{file}: {value!r} is none of {', '.join(known)}.")
            return SparsePooling(strategy, activation == "log1p_relu")
    return SparsePooling()


def read_pooling(folder: Path) -> Pooling | None:
    """The pooling of a sentence-transformers folder; None for any other folder.

    Raises CheckpointError for damaged files; a module or setting that sparsebert does not compute
    is told in `Pooling.unsupported`.
    """
    try:
        return _read(folder)
    except _UnsupportedError as error:
        return Pooling(unsupported=str(error))


_SPLADE = "SpladePooling"


class _UnsupportedError(Exception):
    pass


def _read(folder: Path) -> Pooling | None:
    modes: tuple[str, ...] | None = None
    include_prompt = True
    layers: list[PooledLayer] = []
    for module in read_modules(folder):
        if module.kind == "Pooling" and modes is None:
            if transformer_task(folder) != "feature-extraction":
                raise _UnsupportedError(
                    f"{folder / MODULES_NAME} pools a head's logits, which sparsebert does not."
                )
            file = module.folder / "config.json"
            settings = read_object(file)
            POOLING.check(settings, file)
            modes = _modes(settings, file)
            include_prompt = _switch(settings, "include_prompt", True, file)
        elif module.kind in _LAYERS and modes is not None:
            layers.append(_LAYERS[module.kind](module, folder))
        elif module.kind == _SPLADE:
            raise _UnsupportedError(
                f"{folder} makes sparse embeddings, a weight for each token of the vocabulary: use "
                "embed_sparse."
            )
        elif module.kind not in (*TRANSFORMERS, "Dropout"):  # dropout does nothing at inference
            raise _UnsupportedError(
                f"{folder / MODULES_NAME} asks for a '{module.kind}' module, which sparsebert does "
                "not compute; supported are Transformer, one Pooling, and behind it "
                f"{', '.join(_LAYERS)}."
            )
    if modes is None:
        return None
    normalize = bool(layers) and layers[-1].kind == "normalize"
    return Pooling(modes, normalize, include_prompt, tuple(layers[: len(layers) - normalize]))


def _dense(module: Module, _root: Path) -> PooledLayer:
    file = module.folder / "config.json"
    settings = read_object(file)
    _supported(DENSE.check, settings, file)
    named = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = str(named).rsplit(".", 1)[-1]
    if not str(named).startswith("torch.nn.") or activation not in _ACTIVATIONS:
        raise _UnsupportedError(
            f"{file}: the activation_function {named!r} is not supported; supported are torch's "
            f"{', '.join(_ACTIVATIONS)}."
        )
    return PooledLayer(
        "dense",
        module.folder,
        _ACTIVATIONS[activation],
        _count(settings, "in_features", file),
        _count(settings, "out_features", file),
        _switch(settings, "bias", True, file),
    )


def _norm(module: Module, _root: Path) -> PooledLayer:
    file = module.folder / "config.json"
    settings = read_object(file)
    LAYER_NORM.check(settings, file)
    return PooledLayer("norm", module.folder, outputs=_count(settings, "dimension", file))


def _normalize(module: Module, root: Path) -> PooledLayer:
    file = module.folder / "config.json"
    if module.folder != root and has_file(file):
        _supported(NORMALIZE.check, read_object(file), file)
    return PooledLayer("normalize", module.folder)


_LAYERS = {"Dense": _dense, "LayerNorm": _norm, "Normalize": _normalize}


def _supported(check: Any, settings: Mapping[str, Any], file: Path) -> None:
    try:
        check(settings, file)
    except CheckpointError as error:
        raise _UnsupportedError(str(error)) from None


def _count(settings: Mapping[str, Any], name: str, where: Path) -> int:
    value = settings.get(name)
    if type(value) is not int or not 1 <= value <= MOST:
        raise CheckpointError(f"{where}: {name} must be a whole number, not {value!r}.")
    return value


def _switch(settings: Mapping[str, Any], name: str, default: bool, where: Path) -> bool:
    value = settings.get(name, default)
    if not isinstance(value, bool):
        raise CheckpointError(f"{where}: {name} is {value!r}, not true or false.")
    return value


def _modes(settings: Mapping[str, Any], where: Path) -> tuple[str, ...]:
    named: Any = settings.get("pooling_mode")
    if named is None:
        named = [mode for flag, mode in _OLD_FLAGS.items() if settings.get(flag)] or ["mean"]
    modes = named if isinstance(named, list) else [named]
    for mode in modes or [None]:
        if not isinstance(mode, str) or mode not in _MODES:
            raise CheckpointError(
                f"{where}: pooling mode {mode!r} is not supported; supported are "
                f"{', '.join(_MODES)}."
            )
    return tuple(_MODES[mode] for mode in modes)
