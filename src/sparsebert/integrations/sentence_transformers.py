"""sentence-transformers on our engine: change the import, keep every method.

    from sparsebert.integrations.sentence_transformers import SentenceTransformer

    model = SentenceTransformer("packed/")
    model.encode(["a text", "another"], normalize_embeddings=True)

`CrossEncoder`, `SparseEncoder` (SPLADE) and `MultiVectorEncoder` (ColBERT) work the same way. They
are subclasses of sentence-transformers' own in which only the module that runs the transformer is
ours: prompts, pooling, evaluators and pools of processes are theirs. Folders may be packed, sparse
or dense. Saved folders do not mention our classes; once unpacked, either library can load them.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sparsebert.checkpoint import resolve_model
from sparsebert.checkpoint.json_files import read_json, replace_json
from sparsebert.checkpoint.known_keys import CONFIG_KWARGS, MODEL_KWARGS
from sparsebert.checkpoint.modules import (
    MODULES_NAME,
    ROUTER_NAME,
    router_types,
    transformer_folder,
    transformer_on_top,
)
from sparsebert.errors import InputError, MissingExtraError

try:
    import sentence_transformers
    import torch
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.base.modules import Router as TorchRouter
    from sentence_transformers.base.modules import Transformer as TorchTransformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from sentence_transformers.sentence_transformer.modules import Pooling
    from sentence_transformers.sparse_encoder.modules import MLMTransformer as TorchMLMTransformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling
except ImportError as error:
    raise MissingExtraError(__name__, "sentence-transformers") from error

from sparsebert.inference import Model
from sparsebert.integrations.transformers import FROM_HUB, SparsebertModel, check_settings
from sparsebert.packing import is_packed, renew_checksums

_BACKEND = "sparsebert"
_TASKS = {
    "feature-extraction": "feature-extraction",
    "sequence-classification": "text-classification",
    "fill-mask": "fill-mask",
}
_TOKENS = "token_embeddings"


class _EngineModule:
    """The first module of a model, with our engine in place of the torch model."""

    def _load_config(
        self, model_name_or_path: str, backend: str, config_kwargs: dict[str, Any]
    ) -> tuple[Any, bool]:
        neutral = {
            key: value for key, value in config_kwargs.items() if key in CONFIG_KWARGS.harmless
        }
        found: tuple[Any, bool] = super()._load_config(  # type: ignore[misc]
            model_name_or_path, backend, neutral
        )
        check_settings(config_kwargs, CONFIG_KWARGS, "config_kwargs", found[0])
        return found

    def _load_model(
        self,
        model_name_or_path: str,
        transformer_task: str,
        config: Any,
        backend: str,
        is_peft_model: bool,
        **options: Any,
    ) -> SparsebertModel:
        hub = {name: options.pop(name) for name in FROM_HUB if name in options}
        threads = options.pop("threads", None)
        check_settings(options, MODEL_KWARGS, "model_kwargs", config)
        if is_peft_model or transformer_task not in _TASKS:
            raise InputError(
                f"{model_name_or_path} is not a plain encoder, classifier or masked-LM model: our "
                "engine runs only these."
            )
        folder = resolve_model(model_name_or_path, **hub)
        subfolder = options.get("subfolder") or ""
        if folder / subfolder != transformer_folder(folder):
            raise InputError(
                f"the transformer of {model_name_or_path} is not in the subfolder '{subfolder}' "
                "that model_kwargs names: leave it out."
            )
        return SparsebertModel.from_pretrained(
            folder, task=_TASKS[transformer_task], threads=threads
        )


class Transformer(_EngineModule, TorchTransformer):  # type: ignore[misc]
    """``sentence_transformers.base.modules.Transformer``, computing on our engine."""


class MLMTransformer(_EngineModule, TorchMLMTransformer):  # type: ignore[misc]
    """The module of SPLADE models that were saved before sentence-transformers 5.4."""


class Router(TorchRouter):  # type: ignore[misc]
    """The module of models in which queries take another route than documents."""

    @classmethod
    def load(cls, model_name_or_path: str, *arguments: Any, **options: Any) -> Any:
        """As in sentence-transformers, with the transformer on our engine."""
        names = {"revision": "revision", "token": "token", "cache_folder": "cache_dir"}
        hub = {theirs: options[ours] for ours, theirs in names.items() if options.get(ours)}
        types = router_types(resolve_model(model_name_or_path, **hub))
        classes = {ours.__name__: ours for ours in (Transformer, MLMTransformer)}
        chosen = {named: classes[kind] for named, kind in types.items() if kind in classes}
        return super().load(model_name_or_path, *arguments, module_classes=chosen, **options)


_OURS = {
    TorchTransformer: Transformer,
    TorchMLMTransformer: MLMTransformer,
    TorchRouter: Router,
}


class _OnEngine:
    """What a model does differently from its class in sentence-transformers."""

    def __init__(
        self, model_name_or_path: str | Path, *, threads: int | None = None, **options: Any
    ) -> None:
        """``options`` are those of the class in sentence-transformers, without ``backend``.

        ``threads`` is the number of the engine's threads, as for `sparsebert.load`. The device is
        always the CPU.
        """
        if "backend" in options:
            raise InputError("backend is sparsebert's own engine here: leave the argument out.")
        options["model_kwargs"] = {**(options.get("model_kwargs") or {}), "threads": threads}
        options["device"] = "cpu"
        super().__init__(str(model_name_or_path), backend=_BACKEND, **options)  # type: ignore[call-arg]

    def _load_module_class_from_ref(self, *arguments: Any, **options: Any) -> type:
        found: type = super()._load_module_class_from_ref(*arguments, **options)  # type: ignore[misc]
        return _OURS.get(found, found)

    def save(self, path: str, *arguments: Any, **options: Any) -> None:
        """As in sentence-transformers; weights are saved as they are, packed or not."""
        super().save(path, *arguments, **options)  # type: ignore[misc]
        folder = Path(path)
        for name in (MODULES_NAME, ROUTER_NAME):
            if (folder / name).is_file():
                replace_json(folder / name, _with_theirs(read_json(folder / name)))
        if (inner := transformer_folder(folder)) != folder:  # in a subfolder, as a Router has
            for name, content in transformer_on_top(folder).items():
                replace_json(folder / name, content)
            for file in inner.iterdir():
                shutil.move(file, folder / file.name)
            inner.rmdir()
        if is_packed(folder):
            renew_checksums(folder)


def _with_theirs(content: Any) -> Any:
    """The content of a JSON file, with sentence-transformers' classes in place of ours."""
    names = {
        f"{ours.__module__}.{ours.__name__}": f"{theirs.__module__}.{theirs.__name__}"
        for theirs, ours in _OURS.items()
    }
    if isinstance(content, dict):
        return {key: _with_theirs(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_with_theirs(value) for value in content]
    return names.get(content, content) if isinstance(content, str) else content


class SentenceTransformer(_OnEngine, sentence_transformers.SentenceTransformer):  # type: ignore[misc]
    """``sentence_transformers.SentenceTransformer``, running on our engine."""

    def _load_default_modules(
        self, model_name_or_path: str, **options: Any
    ) -> tuple[list[Any], dict[str, Any]]:
        encoder = _transformer(model_name_or_path, "feature-extraction", **options)
        return [encoder, Pooling(encoder.get_embedding_dimension(), "mean")], {}


class CrossEncoder(_OnEngine, sentence_transformers.CrossEncoder):  # type: ignore[misc]
    """``sentence_transformers.CrossEncoder``, running on our engine."""

    def _load_default_modules(
        self, model_name_or_path: str, **options: Any
    ) -> tuple[list[Any], dict[str, Any]]:
        return [_transformer(model_name_or_path, "sequence-classification", **options)], {}


class SparseEncoder(_OnEngine, sentence_transformers.SparseEncoder):  # type: ignore[misc]
    """``sentence_transformers.SparseEncoder``, running on our engine."""

    def _load_default_modules(
        self, model_name_or_path: str, **options: Any
    ) -> tuple[list[Any], dict[str, Any]]:
        return [_transformer(model_name_or_path, "fill-mask", **options), SpladePooling("max")], {}


class MultiVectorEncoder(_OnEngine, sentence_transformers.MultiVectorEncoder):  # type: ignore[misc]
    """``sentence_transformers.MultiVectorEncoder``, running on our engine."""

    def _load_default_modules(
        self, model_name_or_path: str, **options: Any
    ) -> tuple[list[Any], dict[str, Any]]:
        """The modules of a folder as saved by ColBERT's authors, which has its own projection."""
        encoder = _transformer(model_name_or_path, "feature-extraction", **options)
        engine: Model = encoder.model.engine
        if engine.token_vectors is None or engine.token_vectors.of.first:  # BGE-M3
            raise InputError(
                f"{model_name_or_path} has no {MODULES_NAME} and is not a ColBERT model: it has "
                "nothing that makes vectors of its tokens."
            )
        colbert = engine.token_vectors.of
        (projection, _), expansion = colbert.layers, colbert.expansion
        encoder.document_length = colbert.lengths.get("document")
        assert expansion is not None
        encoder.query_expansion = {
            "strategy": "fixed",
            "attend": expansion.attend,
            "length": expansion.length,
        }
        for task, prompt in colbert.prompts.items():
            if self.prompts.get(task) is None:
                self.prompts[task] = prompt
        self._legacy.prefixes = dict(zip(colbert.prompts, colbert.markers, strict=True))
        dense = Dense(
            projection.inputs,
            projection.outputs,
            bias=False,
            activation_function=torch.nn.Identity(),
            init_weight=torch.from_numpy(projection.weights()["weight"]),
            module_input_name=_TOKENS,
        )
        mask = MultiVectorMask(skiplist_words=list(colbert.skipped_words))
        return [encoder, dense, mask, Normalize(module_input_name=_TOKENS)], {}


def _transformer(
    name: str,
    task: str,
    *,
    cache_folder: str | None = None,
    model_kwargs: dict[str, Any] | None = None,
    processor_kwargs: dict[str, Any] | None = None,
    config_kwargs: dict[str, Any] | None = None,
    **hub: Any,
) -> Transformer:
    """The transformer module of a folder without modules.json."""
    hub["cache_dir"] = cache_folder
    return Transformer(
        name,
        transformer_task=task,
        model_kwargs={**hub, **(model_kwargs or {})},
        processor_kwargs={**hub, **(processor_kwargs or {})},
        config_kwargs={**hub, **(config_kwargs or {})},
        backend=_BACKEND,
    )
