"""How a sentence-transformers folder turns a text's token vectors into one vector.

That is: its modules after the transformer (Pooling, which Dense, LayerNorm and Normalize may
follow), and the number of dimensions to keep of their output.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.checkpoint.json_files import ConfigValues, read_object, write_json
from sparsebert.checkpoint.known_keys import POOLING
from sparsebert.checkpoint.model_settings import MODEL_SETTINGS_NAME, read_dimensions
from sparsebert.checkpoint.modules import (
    MODULES_NAME,
    TRANSFORMERS,
    differing_routes,
    read_modules,
    read_routes,
    unsupported_route,
)
from sparsebert.checkpoint.sentence_config import SENTENCE_CONFIGS, transformer_task
from sparsebert.checkpoint.sparse_routes import SPLADE_MODULE
from sparsebert.checkpoint.vector_layers import (
    LAYERS,
    TEXT,
    UnsupportedModuleError,
    VectorLayer,
    gives_scores,
    read_layer,
    width_behind,
)
from sparsebert.errors import CheckpointError

# The Pooling module's names of modes: those since version 5.5, then the older flags.
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


@dataclass(frozen=True)
class Pooling:
    """From token vectors to an embedding.

    The results of ``modes`` ("mean", "cls", "max", "mean_sqrt_len", "weightedmean" or "lasttoken")
    are concatenated. ``layers`` are applied to them, and ``normalize`` scales the result to length
    1. Without ``include_prompt``, the tokens of a prompt are not pooled. With ``scores``, the
    result is not an embedding but scores of a text or a pair: the model is a reranker or a
    classifier. ``unsupported``, if not empty, says which module of the folder sparsebert does not
    compute; texts then cannot be embedded.
    """

    modes: tuple[str, ...] = ("mean",)
    normalize: bool = False
    include_prompt: bool = True
    layers: tuple[VectorLayer, ...] = ()
    scores: bool = False
    unsupported: str = ""

    @property
    def embeds(self) -> bool:
        """Whether texts of the folder can be embedded."""
        return not (self.unsupported or self.scores)

    def check(self) -> None:
        """Raise CheckpointError if texts of the folder cannot be embedded."""
        if self.unsupported:
            raise CheckpointError(self.unsupported)
        if self.scores:
            raise CheckpointError(
                "the last module of the folder makes scores of a text or a pair, not an embedding."
            )

    def width(self, hidden: int) -> int:
        """The length of an embedding, in a model with that hidden size."""
        return width_behind(self.layers, len(self.modes) * hidden)


def read_pooling(folder: Path) -> Pooling | None:
    """The pooling of a sentence-transformers folder; None for any other folder.

    Raises CheckpointError for damaged files; a module or setting that sparsebert does not compute
    is reported in `Pooling.unsupported`.
    """
    try:
        return _read(folder)
    except UnsupportedModuleError as error:
        return Pooling(unsupported=str(error))


def write_mean_pooling(folder: Path, width: int, max_length: int) -> None:
    """Write the modules of an embedding model: the encoder at the top, then mean pooling.

    Settings that the folder had without modules are removed: they did not apply to it.
    """
    (folder / MODEL_SETTINGS_NAME).unlink(missing_ok=True)
    kinds = {"Transformer": "", "Pooling": "1_Pooling"}
    library = "sentence_transformers.models"
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"{library}.{kind}"}
        for place, (kind, path) in enumerate(kinds.items())
    ]
    write_json(folder / MODULES_NAME, modules)
    (folder / kinds["Pooling"]).mkdir()
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    write_json(folder / kinds["Pooling"] / CONFIG_NAME, pooling)
    settings = {"max_seq_length": max_length, "do_lower_case": False}
    write_json(folder / SENTENCE_CONFIGS[0], settings)


def _read(folder: Path) -> Pooling | None:
    if routed := unsupported_route(folder):
        raise UnsupportedModuleError(routed)
    dense = any(each.kind == "Pooling" for route in read_routes(folder).values() for each in route)
    if dense and (differing := differing_routes(folder)):
        raise UnsupportedModuleError(differing)
    modes: tuple[str, ...] | None = None
    include_prompt, scores = True, False
    layers: list[VectorLayer] = []
    for module in read_modules(folder):
        if module.kind == "Pooling" and modes is None:
            if transformer_task(folder) != "feature-extraction":
                raise UnsupportedModuleError(
                    f"{folder / MODULES_NAME} pools a head's logits, which is not supported."
                )
            file = module.folder / CONFIG_NAME
            settings = read_object(file)
            POOLING.check(settings, file)
            values = ConfigValues(settings, file, {})
            modes = _modes(values)
            include_prompt = values.switch("include_prompt", True)
        elif module.kind == SPLADE_MODULE:
            raise UnsupportedModuleError(
                f"{folder} makes sparse embeddings, a weight for each token of the vocabulary: use "
                "embed_sparse."
            )
        elif module.kind in (*TRANSFORMERS, "Dropout"):  # dropout does nothing at inference
            continue
        else:
            layer = None if modes is None or scores else read_layer(module, TEXT)
            if layer is None:
                raise UnsupportedModuleError(
                    f"{folder / MODULES_NAME} asks for a '{module.kind}' module, which sparsebert "
                    "does not support there; it supports Transformer, one Pooling and, after it, "
                    f"{', '.join(LAYERS)}."
                )
            scores = gives_scores(module)
            layers.append(layer)
    if modes is None:
        return None
    dimensions = None if scores else read_dimensions(folder)
    if dimensions is not None:  # even after a Normalize; vectors then no longer have length 1
        layers.append(VectorLayer("truncate", folder, outputs=dimensions))
    normalize = bool(layers) and layers[-1].kind == "normalize"
    kept = tuple(layers[: len(layers) - normalize])
    return Pooling(modes, normalize, include_prompt, kept, scores)


def _modes(values: ConfigValues) -> tuple[str, ...]:
    named: Any = values.raw.get("pooling_mode")
    if named is None:
        flags = [flag for flag in _OLD_FLAGS if values.switch(flag, False)]
        named = [_OLD_FLAGS[flag] for flag in flags] or ["mean"]
    modes = named if isinstance(named, list) else [named]
    for mode in modes or [None]:
        if not isinstance(mode, str) or mode not in _MODES:
            raise CheckpointError(
                f"{values.where}: pooling mode {mode!r} is not supported; use one of "
                f"{', '.join(_MODES)}."
            )
    return tuple(_MODES[mode] for mode in modes)
