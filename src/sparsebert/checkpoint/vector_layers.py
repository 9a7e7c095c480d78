"""Layers for vectors after the encoder: sentence-transformers' Dense, LayerNorm and Normalize.

They apply to text vectors after pooling and, in multi-vector models, to token vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsebert.checkpoint.dtypes import WEIGHT_TYPES, Float32, check_finite, widen
from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.json_files import ConfigValues, read_object
from sparsebert.checkpoint.known_keys import DENSE, LAYER_NORM, NORMALIZE
from sparsebert.checkpoint.modules import Module
from sparsebert.checkpoint.tensors import INDEX_NAME, PACKED_NAME, WEIGHTS_NAME, TensorFiles
from sparsebert.errors import CheckpointError

_ACTIVATIONS = {  # of a Dense module, by the last part of its torch class
    "Identity": "identity",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
}
LAYER_NORM_EPSILON = 1e-5  # torch's default, which the LayerNorm module keeps
LAYERS = {"Dense": DENSE, "LayerNorm": LAYER_NORM, "Normalize": NORMALIZE}  # and their keys
TEXT, TOKENS, SCORES = "sentence_embedding", "token_embeddings", "scores"


class UnsupportedModuleError(Exception):
    """A module or setting that sparsebert does not compute; only what needs it is refused."""


@dataclass(frozen=True)
class VectorLayer:
    """A "dense" layer with an ``activation``, a "norm", "normalize", or "truncate" to ``outputs``.

    ``place`` is the file or folder with its weights, and ``stem`` the beginning of their names.
    With ``residual``, a dense layer's input is added to its output, through a matrix of its own if
    their widths differ.
    """

    kind: str
    place: Path
    stem: str = "linear"
    activation: str = "identity"
    inputs: int = 0
    outputs: int = 0
    has_bias: bool = True
    residual: bool = False

    def weights(self) -> dict[str, Float32]:
        """Its tensors in float32: ``weight``, ``bias`` and ``residual``. Raises CheckpointError."""
        if self.kind in ("normalize", "truncate"):
            return {}
        matrix = (self.outputs, self.inputs)
        stored: dict[str, tuple[str, tuple[int, ...]]] = {
            "weight": (f"{self.stem}weight", matrix if self.kind == "dense" else (self.outputs,))
        }
        if self.has_bias:
            stored["bias"] = (f"{self.stem}bias", (self.outputs,))
        if self.residual and self.inputs != self.outputs:
            stored["residual"] = ("residual.weight", matrix)
        tensors = tensors_at(self.place)
        return {
            name: read_floats(tensors, in_file, shape, self.place)
            for name, (in_file, shape) in stored.items()
        }


def read_layer(module: Module, vectors: str, *, default: str = TEXT) -> VectorLayer | None:
    """The layer of a Dense, LayerNorm or Normalize module over ``vectors``; None for other modules.

    ``vectors`` is what it must apply to, TEXT or TOKENS, and ``default`` what it applies to if its
    settings do not say. Raises CheckpointError, UnsupportedModuleError.
    """
    if module.kind not in LAYERS:
        return None
    file = module.folder / "config.json"
    settings = read_object(file) if module.kind != "Normalize" or _has_own(module) else {}
    LAYERS[module.kind].check(settings, file)
    values = ConfigValues(settings, file, {})
    given = settings.get("module_input_name") or (default if module.kind == "Dense" else TEXT)
    if module.kind == "LayerNorm":
        given = TEXT
    made = settings.get("module_output_name") or given
    if given != vectors or made not in (vectors, *((SCORES,) if vectors == TEXT else ())):
        changed = given if given != vectors else made
        raise UnsupportedModuleError(
            f"{file}: its {module.kind} works on {changed!r}, but sparsebert only supports "
            f"{vectors!r} here."
        )
    if module.kind == "Normalize":
        return VectorLayer("normalize", module.folder)
    if module.kind == "LayerNorm":
        width = values.count("dimension")
        return VectorLayer("norm", module.folder, "norm.", outputs=width)
    return _dense(values, module.folder)


def gives_scores(module: Module) -> bool:
    """Whether a Dense module makes scores, as the last one of a reranker does."""
    return (
        module.kind == "Dense"
        and read_object(module.folder / "config.json").get("module_output_name") == SCORES
    )


def width_behind(layers: tuple[VectorLayer, ...], width: int) -> int:
    """The width of a vector after the layers, if it is ``width`` before them.

    Raises CheckpointError for a layer that takes vectors of another width.
    """
    for each in layers:
        if each.kind == "truncate":
            width = min(width, each.outputs)
        elif each.kind != "normalize":
            taken = each.inputs if each.kind == "dense" else each.outputs
            if taken != width:
                raise CheckpointError(
                    f"{each.place}: this layer takes vectors of {taken} numbers, but gets "
                    f"vectors of {width}."
                )
            width = each.outputs
    return width


def _dense(values: ConfigValues, folder: Path) -> VectorLayer:
    named = values.raw.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = str(named).rsplit(".", 1)[-1]
    if not str(named).startswith("torch.nn.") or activation not in _ACTIVATIONS:
        raise UnsupportedModuleError(
            f"{values.where}: the activation_function {named!r} is not supported; use one of "
            f"torch's {', '.join(_ACTIVATIONS)}."
        )
    return VectorLayer(
        "dense",
        folder,
        "linear.",
        _ACTIVATIONS[activation],
        values.count("in_features"),
        values.count("out_features"),
        values.switch("bias", True),
        values.switch("use_residual", False),
    )


def _has_own(module: Module) -> bool:
    """Whether a Normalize module has a folder with settings; old ones have none or an empty one."""
    return module.has_folder and has_file(module.folder / "config.json")


def tensors_at(place: Path) -> TensorFiles:
    """The tensors of a file, or of a packed or other folder. Raises CheckpointError."""
    if place.is_dir():
        if has_file(place / PACKED_NAME):
            return TensorFiles([place / PACKED_NAME])
        if not has_file(place / WEIGHTS_NAME) and not has_file(place / INDEX_NAME):
            raise CheckpointError(
                f"{place} has no {WEIGHTS_NAME}: save the model again with a current version of "
                "sentence-transformers, or run `sparsebert convert`."
            )
        return TensorFiles.of_folder(place)
    return TensorFiles([place])


def read_floats(tensors: TensorFiles, name: str, shape: tuple[int, ...], place: Path) -> Float32:
    """A tensor of that shape, in float32. Raises CheckpointError; ``place`` is for its message."""
    if name not in tensors:
        raise CheckpointError(f"{place} lacks the tensor '{name}'.")
    spec = tensors.spec(name)
    if spec.shape != shape or spec.dtype not in WEIGHT_TYPES:
        raise CheckpointError(
            f"{place}: tensor '{name}' is {spec.dtype} {list(spec.shape)}, but config.json "
            f"requires floats {list(shape)}."
        )
    values = np.array(widen(tensors[name], spec.dtype))
    check_finite(name, values, place)
    return values
