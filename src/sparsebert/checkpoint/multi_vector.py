"""Multi-vector models (ColBERT): how a folder makes a vector for each token of a text.

Khattab and Zaharia 2020, arXiv:2004.12832. There are three layouts: the modules of
sentence-transformers' MultiVectorEncoder; PyLate's, where settings describe what PyLate's own code
does; and the original ColBERT's (HF_ColBERT), with the projection among the encoder's weights and
settings in artifact.metadata. BGE-M3's heads are a fourth (`bge_m3`).
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sparsebert.checkpoint.bge_m3 import COLBERT, head_layer
from sparsebert.checkpoint.config import CONFIG_NAME, EncoderConfig
from sparsebert.checkpoint.families import COLBERT_ARCHITECTURE
from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.known_keys import MULTI_VECTOR_MASK
from sparsebert.checkpoint.model_settings import MODEL_SETTINGS_NAME, model_settings, read_prompts
from sparsebert.checkpoint.modules import (
    MODULES_NAME,
    TRANSFORMERS,
    Module,
    differing_routes,
    read_modules,
)
from sparsebert.checkpoint.sentence_config import transformer_settings
from sparsebert.checkpoint.vector_layers import (
    TOKENS,
    UnsupportedModuleError,
    VectorLayer,
    read_layer,
    tensors_at,
)
from sparsebert.errors import CheckpointError

Task = Literal["query", "document"]
METADATA_NAME = "artifact.metadata"
_MASK = "MultiVectorMask"
_PYLATE_DENSE = "pylate.models.Dense.Dense"
_MODEL_TYPES = ("MultiVectorEncoder", "ColBERT")
_PROJECTION = "linear.weight"
_USUAL_LENGTH = 32  # of a query, including the tokens that expand it
_LONGEST = 1 << 20  # tokens
_MEAN = "meanmaxsim"
_TASKS: tuple[Task, Task] = ("query", "document")
_MARKERS = (  # settings by which sentence-transformers recognises a folder of PyLate
    "query_length",
    "document_length",
    "query_expansion",
    "do_query_expansion",
    "attend_to_expansion_tokens",
    "attend_to_mask_tokens",
    "query_prefix",
    "document_prefix",
    "skiplist_words",
)


@dataclass(frozen=True)
class QueryExpansion:
    """Tokens appended to a query up to ``length`` tokens: ``token``, or None for the mask token.

    Unless ``attend``, neither the query's own tokens nor the appended ones attend to them. If
    ``fixed``, longer queries are truncated to ``length``.
    """

    length: int
    attend: bool = False
    token: str | None = None
    fixed: bool = True


@dataclass(frozen=True)
class MultiVector:
    """From token vectors to the vectors that represent a text.

    ``layers`` are applied to each vector. The vectors of ``skipped_words`` are left out of the
    kinds of texts in ``skipped_in`` (usually documents), and the ``first`` ones of all texts; if
    there are ``kept_ids``, only theirs are kept of a document. ``markers`` precede a text, as one
    token each if the vocabulary has them. The score of a document is the sum (with ``mean``, the
    mean) over the query's vectors of the largest product with one of the document's.
    ``unsupported`` is as in `Pooling`.
    """

    layers: tuple[VectorLayer, ...] = ()
    lengths: Mapping[Task, int] = field(default_factory=dict)
    expansion: QueryExpansion | None = None
    skipped_words: tuple[str, ...] = ()
    skipped_in: tuple[str, ...] = ("document",)
    kept_ids: tuple[int, ...] = ()
    first: int = 0
    prompts: Mapping[Task, str] = field(default_factory=dict)
    markers: tuple[str, ...] = ()
    mean: bool = False
    unsupported: str = ""

    def check(self) -> None:
        """Raise CheckpointError if texts of the folder cannot be embedded."""
        if self.unsupported:
            raise CheckpointError(self.unsupported)


def read_multi_vector(folder: Path, config: EncoderConfig) -> MultiVector | None:
    """What the folder says about token vectors; None for a folder that makes none.

    Raises CheckpointError for damaged files; what sparsebert does not compute is reported in
    `MultiVector.unsupported`.
    """
    try:
        found = _read(folder, config.hidden_size)
    except UnsupportedModuleError as error:
        return MultiVector(unsupported=str(error))
    if found and found.expansion and not found.expansion.attend and config.disentangled:
        # transformers' DeBERTa zeroes such tokens, in their embeddings and as queries.
        return MultiVector(
            unsupported=f"{folder} expands queries with tokens that nothing attends to, which "
            "sparsebert does not support for DeBERTa."
        )
    return found


def _read(folder: Path, hidden_size: int) -> MultiVector | None:
    modules = read_modules(folder)
    if not modules and _is_original(folder):
        return _original(folder, hidden_size)
    if any(module.kind in (_MASK, _PYLATE_DENSE) for module in modules) or (
        modules and model_settings(folder).get("model_type") in _MODEL_TYPES
    ):
        return _with_modules(folder, modules)
    _check_one_limit(folder)
    colbert = head_layer(folder, COLBERT, hidden_size, hidden_size)
    if colbert is None:
        return None
    return MultiVector((colbert, VectorLayer("normalize", folder)), first=1, mean=True)


def _check_one_limit(folder: Path) -> None:
    """Raise CheckpointError for settings that are only supported in multi-vector models."""
    if not read_modules(folder):
        return
    file, own = transformer_settings(folder)
    for name in ("query_length", "document_length", "query_expansion"):
        if own.get(name) is not None:
            raise CheckpointError(
                f"{file}: {name} is set, but this is not a multi-vector model: all other models "
                "have one limit for all texts in sparsebert."
            )


def _with_modules(folder: Path, modules: list[Module]) -> MultiVector:
    """The layouts with modules.json: sentence-transformers', and PyLate's."""
    if differing := differing_routes(folder):
        raise UnsupportedModuleError(differing)
    where, settings = folder / MODEL_SETTINGS_NAME, model_settings(folder)
    pylate = settings.get("model_type") == "ColBERT"
    layers: list[VectorLayer] = []
    mask: dict[str, Any] | None = None
    for module in modules:
        if module.kind in (*TRANSFORMERS, "Dropout"):
            continue
        if module.kind == _MASK and mask is None:
            file = module.folder / "config.json"
            mask = read_object(file) if module.has_folder and has_file(file) else {}
            MULTI_VECTOR_MASK.check(mask, file)
            continue
        kind = "Dense" if module.kind == _PYLATE_DENSE else module.kind
        layer = read_layer(Module(kind, module.folder, module.has_folder), TOKENS, default=TOKENS)
        if layer is None:
            raise UnsupportedModuleError(
                f"{folder / MODULES_NAME} asks for a '{module.kind}' module, which sparsebert does "
                "not support for token vectors."
            )
        layers.append(layer)
    if pylate:  # what PyLate's own code does after the modules
        layers.append(VectorLayer("normalize", folder))
        mask = {"skiplist_words": settings.get("skiplist_words", list(string.punctuation))}
    own_file, own = transformer_settings(folder)
    given = {**_pylate_lengths(settings), **own}
    lengths: dict[Task, int] = {}
    for task in _TASKS:
        if given.get(f"{task}_length") is not None:
            lengths[task] = _length(given[f"{task}_length"], f"{task}_length", own_file)
    expansion = _expansion(given.get("query_expansion"), own_file)
    if mask is None and expansion is not None and not expansion.attend:
        raise UnsupportedModuleError(
            f"{own_file}: query_expansion adds tokens that nothing attends to, and "
            f"{MODULES_NAME} lists no {_MASK} module, without which they have no vectors: "
            "remove it, or set attend."
        )
    mask = mask or {}
    prompts, markers = _prompts(folder, settings, where)
    skipped_in = mask.get("skiplist_tasks")
    skipped_in = ["document"] if skipped_in is None else skipped_in
    return MultiVector(
        tuple(layers),
        lengths,
        expansion,
        _words(mask.get("skiplist_words") or [], where),
        _words([skipped_in] if isinstance(skipped_in, str) else skipped_in, where),
        _ids(mask.get("keep_only_token_ids") or [], where),
        0,
        prompts,
        markers,
        settings.get("similarity_fn_name") == _MEAN,
    )


def _pylate_lengths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Lengths and expansion from PyLate's settings, in sentence-transformers' terms."""
    if not any(name in settings for name in _MARKERS):
        return {}
    found = {"document_length": settings.get("document_length")}
    if "query_expansion" in settings:
        expansion = settings["query_expansion"]
        return {
            **found,
            "query_length": settings.get("query_length"),
            "query_expansion": expansion,
        }
    if settings.get("do_query_expansion") is False:
        return {**found, "query_length": settings.get("query_length")}
    attend = settings.get("attend_to_expansion_tokens", settings.get("attend_to_mask_tokens"))
    length = settings.get("query_length") or _USUAL_LENGTH
    expansion = {"strategy": "fixed", "attend": bool(attend), "length": length}
    return {**found, "query_expansion": expansion}


def _prompts(
    folder: Path, settings: Mapping[str, Any], where: Path
) -> tuple[dict[Task, str], tuple[str, ...]]:
    """The text before queries and documents, and the markers in it."""
    named = read_prompts(folder)
    prompts: dict[Task, str] = {}
    markers: list[str] = []
    for task in _TASKS:
        prompts[task] = named.of(task)
        if f"{task}_prefix" in settings:
            marker = settings[f"{task}_prefix"] or ""
            if not isinstance(marker, str):
                raise CheckpointError(f"{where}: {task}_prefix must be a string, not {marker!r}.")
            markers.append(marker)
            prompts[task] = marker + named.texts.get(task, "").removeprefix(marker)
    return prompts, tuple(markers)


def _is_original(folder: Path) -> bool:
    file = folder / CONFIG_NAME
    named = read_object(file).get("architectures") if has_file(file) else None
    return isinstance(named, list) and COLBERT_ARCHITECTURE in named


def _original(folder: Path, hidden_size: int) -> MultiVector:
    """ColBERT's own layout."""
    file = folder / METADATA_NAME
    settings = read_object(file) if has_file(file) else {}
    tensors = tensors_at(folder)
    if _PROJECTION not in tensors:
        raise CheckpointError(f"{folder}: the weights lack ColBERT's projection, '{_PROJECTION}'.")
    shape = tensors.spec(_PROJECTION).shape
    if len(shape) != 2:
        raise CheckpointError(f"{folder}: tensor '{_PROJECTION}' is {list(shape)}, not a matrix.")
    projection = VectorLayer(
        "dense", folder, "linear.", inputs=hidden_size, outputs=shape[0], has_bias=False
    )
    markers = (
        settings.get("query_token_id") or "[unused0]",
        settings.get("doc_token_id") or "[unused1]",
    )
    if not all(isinstance(marker, str) for marker in markers):
        raise CheckpointError(f"{file}: query_token_id and doc_token_id must be strings.")
    if settings.get("interaction", "colbert") != "colbert":
        raise UnsupportedModuleError(
            f"{file}: its interaction is {settings['interaction']!r}, but sparsebert supports only "
            "'colbert', the sum over all of a query's vectors."
        )
    longest = settings.get("doc_maxlen")
    return MultiVector(
        (projection, VectorLayer("normalize", folder)),
        {} if longest is None else {"document": _length(longest, "doc_maxlen", file)},
        QueryExpansion(
            _length(settings.get("query_maxlen") or _USUAL_LENGTH, "query_maxlen", file),
            bool(settings.get("attend_to_mask_tokens")),
        ),
        tuple(string.punctuation) if settings.get("mask_punctuation", True) else (),
        prompts={"query": f"{markers[0]} ", "document": f"{markers[1]} "},
        markers=tuple(f"{marker} " for marker in markers),
    )


def _expansion(given: Any, where: Path) -> QueryExpansion | None:
    if given is None:
        return None
    known = ("strategy", "attend", "token", "length")
    if not isinstance(given, dict) or set(given) - set(known):
        raise CheckpointError(
            f"{where}: query_expansion must be a JSON object with no keys but {', '.join(known)}."
        )
    strategy, attend, token = given.get("strategy"), given.get("attend", False), given.get("token")
    if strategy not in ("fixed", "min"):
        raise CheckpointError(
            f"{where}: query_expansion's strategy must be 'fixed' or 'min', not {strategy!r}."
        )
    if not isinstance(attend, bool) or not isinstance(token, str | None):
        raise CheckpointError(
            f"{where}: in query_expansion, attend must be true or false, token a string or null."
        )
    length = _length(given.get("length"), "query_expansion's length", where)
    return QueryExpansion(length, attend, token, strategy == "fixed")


def _length(value: Any, name: str, where: Path) -> int:
    if type(value) is not int or not 1 <= value <= _LONGEST:
        raise CheckpointError(
            f"{where}: {name} must be a number of tokens from 1 to {_LONGEST}, not {value!r}."
        )
    return value


def _words(value: Any, where: Path) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise CheckpointError(f"{where}: skiplist_words and skiplist_tasks must be strings.")
    return tuple(value)


def _ids(value: Any, where: Path) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(each) is int for each in value):
        raise CheckpointError(f"{where}: keep_only_token_ids must be a list of token ids.")
    return tuple(value)
