"""What sentence-transformers keeps in a folder: modules, prompts, how texts are read, pooling.

The transformer may be in a sub-folder that modules.json names. sentence_bert_config.json says how
its texts are read; the library reads that file only if modules.json lists the transformer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.json_files import inner_folder, read_json, read_object, write_json
from sparsebert.checkpoint.known_keys import (
    CONFIG_KWARGS,
    MODEL_KWARGS,
    PROCESSING_KWARGS,
    PROCESSOR_KWARGS,
    ROUTER,
    ROUTER_PARAMETERS,
    SENTENCE_CONFIG,
    SENTENCE_TRANSFORMERS,
    KnownKeys,
)
from sparsebert.errors import CheckpointError, InputError

MODULES_NAME = "modules.json"
ROUTER_NAME = "router_config.json"
_ROUTERS = ("Router", "Asym")  # the latter in old folders
TRANSFORMERS = ("Transformer", "MLMTransformer")  # the latter with a masked-LM head
_LIBRARY = "sentence_transformers"


@dataclass(frozen=True)
class Module:
    """``kind`` is its class, without the Python module for sentence-transformers' own.

    ``has_folder`` is False if its folder is the model's own, as the transformer's is.
    """

    kind: str
    folder: Path
    has_folder: bool = True


def transformer_folder(folder: Path) -> Path:
    """Where config.json and the weights are: ``folder``, or the sub-folder modules.json names."""
    for module in read_modules(folder):
        if module.kind in TRANSFORMERS:
            return module.folder
    return folder


def module_folders(folder: Path) -> list[Path]:
    """The existing module sub-folders of a folder, except the transformer's."""
    modules = read_modules(folder)
    for route in read_routes(folder).values():
        modules += [module for module in route if module not in modules]
    return [
        module.folder
        for module in modules
        if module.kind not in TRANSFORMERS and module.folder != folder and module.folder.is_dir()
    ]


def read_modules(folder: Path) -> list[Module]:
    """The modules that modules.json lists, in order; none without that file.

    A Router is replaced by the modules of its route for texts without a task or, if that has no
    transformer, of the first route that has one.
    """
    modules: list[Module] = []
    for module in _listed_modules(folder):
        if module.kind in _ROUTERS:
            routes = _routes_of(module)
            modules += next((each for each in routes.values() if _has_transformer(each)), [])
        else:
            modules.append(module)
    return modules


def read_routes(folder: Path) -> dict[str, list[Module]]:
    """The modules of each route of a Router, beginning with the route for texts without a task.

    That one has no name and no modules if sentence-transformers refuses such texts. Empty without a
    Router. Raises CheckpointError for one that is damaged or has several transformers.
    """
    for module in _listed_modules(folder):
        if module.kind in _ROUTERS:
            return _routes_of(module)
    return {}


def router_types(folder: Path) -> dict[str, str]:
    """The kinds (`Module.kind`) of a Router's modules, by the class names in its file."""
    for module in _listed_modules(folder):
        if module.kind in _ROUTERS:
            where = module.folder / ROUTER_NAME
            settings = read_object(where if has_file(where) else module.folder / CONFIG_NAME)
            types = settings.get("types")
            if not isinstance(types, dict):
                raise CheckpointError(f"{where} must contain the 'types' of its modules.")
            return {named: _kind(named, where) for named in types.values()}
    return {}


def unsupported_route(folder: Path) -> str:
    """Why texts without a task cannot be embedded by their Router's route; "" if they can."""
    for route, modules in read_routes(folder).items():
        if not route:
            return (
                f"{folder / ROUTER_NAME} sets allow_empty_key to false and no default_route, so "
                "texts without a task have no route: pass their task, or set default_route."
            )
        if not _has_transformer(modules):
            return (
                f"{folder / ROUTER_NAME} sends texts without a task along the route '{route}', "
                "which has no transformer, so sparsebert cannot compute it: to embed documents, "
                "set default_route to their route."
            )
        break
    return ""


def differing_routes(folder: Path) -> str:
    """Why queries and documents cannot be embedded alike; "" if their routes do not differ."""
    routes = read_routes(folder)
    usual = next(iter(routes.values()), [])
    if all(routes.get(task, usual) == usual for task in ("query", "document")):
        return ""
    return (
        f"{folder / ROUTER_NAME} has different routes for queries and documents, which sparsebert "
        "supports only for sparse embeddings: save the route you need as a model of its own."
    )


def _has_transformer(modules: list[Module]) -> bool:
    return any(module.kind in TRANSFORMERS for module in modules)


def _routes_of(router: Module) -> dict[str, list[Module]]:
    where = router.folder / ROUTER_NAME
    settings = read_object(where if has_file(where) else router.folder / CONFIG_NAME)
    types, structure = settings.get("types"), settings.get("structure")
    parameters = settings.get("parameters") or {}
    if not isinstance(types, dict) or not isinstance(structure, dict) or not structure:
        raise CheckpointError(f"{where} must contain 'types' and the 'structure' of each route.")
    if not isinstance(parameters, dict):
        raise CheckpointError(f"{where}: 'parameters' must be an object.")
    ROUTER.check(settings, where)
    ROUTER_PARAMETERS.check(parameters, where)
    if router.has_folder or parameters.get("route_mappings"):
        raise CheckpointError(
            f"{where}: a Router must be at the top of the folder and route by task only."
        )
    routes: dict[str, list[Module]] = {}
    for name, listed in structure.items():
        if not isinstance(listed, list) or not all(each in types for each in listed):
            raise CheckpointError(f"{where}: the route '{name}' has a module without a type.")
        routes[name] = []
        for each in listed:
            inner = inner_folder(router.folder, each, where)
            routes[name].append(Module(_kind(types[each], where), inner, inner != router.folder))
    usual = parameters.get("default_route")
    if usual is not None and usual not in list(routes):  # it may be of any type
        raise CheckpointError(f"{where}: its default_route {usual!r} is not one of its routes.")
    if "text" in routes:  # the kind of input comes before the default
        usual = "text"
    elif usual is None:
        usual = next(iter(routes)) if parameters.get("allow_empty_key", True) else ""
    transformers = {
        module.folder for route in routes.values() for module in route if _has_transformer([module])
    }
    if len(transformers) > 1:
        raise CheckpointError(
            f"{where} has {len(transformers)} transformers, but only one is supported: save the "
            "one you need as a model of its own."
        )
    return {usual: routes.get(usual, []), **routes}


def transformer_on_top(folder: Path) -> dict[str, Any]:
    """The files of a folder that name its modules, changed to have the transformer at the top."""
    modules: list[dict[str, Any]] = read_json(folder / MODULES_NAME)
    listed = _listed_modules(folder)
    for entry, read in zip(modules, listed, strict=True):
        if read.kind in TRANSFORMERS:
            entry["path"] = ""
    found: dict[str, Any] = {MODULES_NAME: modules}
    if any(module.kind in _ROUTERS for module in listed):
        name = ROUTER_NAME if has_file(folder / ROUTER_NAME) else CONFIG_NAME
        settings = read_object(folder / name)
        moved = {
            each: "" if _kind(kind, folder / name) in TRANSFORMERS else each
            for each, kind in settings["types"].items()
        }
        settings["types"] = {moved[each]: kind for each, kind in settings["types"].items()}
        settings["structure"] = {
            route: [moved[each] for each in modules]
            for route, modules in settings["structure"].items()
        }
        found[ROUTER_NAME] = settings
    return found


def _kind(named: Any, where: Path) -> str:
    """The class of a module, without the Python module for sentence-transformers' own."""
    if not isinstance(named, str) or not named:
        raise CheckpointError(f"{where}: a module has no 'type'.")
    return named.rsplit(".", 1)[-1] if named.startswith(f"{_LIBRARY}.") else named


def _listed_modules(folder: Path) -> list[Module]:
    where = folder / MODULES_NAME
    if not has_file(where):
        return []
    listed = read_json(where)
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise CheckpointError(f"{where} must hold a list of modules.")
    modules = []
    for entry in listed:
        kind = _kind(entry.get("type"), where)
        inner = inner_folder(folder, entry.get("path", ""), where)
        modules.append(Module(kind, inner, inner != folder))
    return modules


SETTINGS_NAME = "config_sentence_transformers.json"
_RERANKER = "CrossEncoder"
_EMBEDDERS = ("SentenceTransformer", "SparseEncoder", "MultiVectorEncoder", "ColBERT", None)
_DOCUMENTS = ("document", "passage", "corpus")  # the library's names of the prompt


def model_settings(folder: Path, *, reranker: bool = False) -> dict[str, Any]:
    """config_sentence_transformers.json of a model that embeds texts, or of a ``reranker``.

    Empty if sentence-transformers ignores it: without a modules.json, and for the other kind.
    Raises CheckpointError.
    """
    file = folder / SETTINGS_NAME
    settings = read_object(file) if has_file(file) and has_file(folder / MODULES_NAME) else {}
    SENTENCE_TRANSFORMERS.check(settings, file)
    kinds = (_RERANKER,) if reranker else _EMBEDDERS
    return settings if settings.get("model_type") in kinds else {}


@dataclass(frozen=True)
class Prompts:
    """``texts`` by name; ``default`` is prepended to each text unless another is given.

    ``query`` and ``document`` are prepended to queries and documents: their own, or the default if
    neither has one, as for any text.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    default: str = ""

    @property
    def query(self) -> str:
        """The text before a query."""
        return self._of("query")

    @property
    def document(self) -> str:
        """The text before a document."""
        return self._of("document")

    def of(self, task: Literal["query", "document"]) -> str:
        """The text before queries or documents whose task is given: never the default.

        As in sentence-transformers' ``encode_query`` and ``encode_document``. Documents' may also
        be called passage or corpus, as their documentation says; version 6 finds only document.
        """
        names = ("query",) if task == "query" else _DOCUMENTS
        return next((text for name in names if (text := self.texts.get(name))), "")

    def named(self, name: str, model: str) -> str:
        """The prompt called ``name`` of the folder ``model``; InputError if there is none."""
        if name not in self.texts:
            known = ", ".join(self.texts) or "none"
            raise InputError(f"{model} has no prompt of that name; it has {known}.")
        return self.texts[name]

    def _of(self, task: Literal["query", "document"]) -> str:
        return self.of(task) if self.of("query") or self.of("document") else self.default


def read_prompts(folder: Path, *, reranker: bool = False) -> Prompts:
    """The prompts of `model_settings`. Raises CheckpointError."""
    file, settings = folder / SETTINGS_NAME, model_settings(folder, reranker=reranker)
    stored = settings.get("prompts") or {}
    if not isinstance(stored, dict) or not all(isinstance(t, str | None) for t in stored.values()):
        raise CheckpointError(f"{file}: 'prompts' must map names to texts.")
    # sentence-transformers reads null as no text, and knows query and document in every model.
    texts = {name: text or "" for name, text in stored.items()}
    named = settings.get("default_prompt_name")
    if named is None:
        return Prompts(texts)
    if named in ("query", "document"):
        return Prompts(texts, texts.get(named, ""))
    if not isinstance(named, str) or named not in texts:
        known = ", ".join(texts) or "none"
        raise CheckpointError(
            f"{file}: 'default_prompt_name' is {named!r}, which is not one of its prompts: {known}."
        )
    return Prompts(texts, texts[named])


def write_mean_pooling(folder: Path, width: int, max_length: int) -> None:
    """Write the modules of an embedding model: the encoder at the top, then mean pooling.

    Settings that the folder had without modules are removed: they did not apply to it.
    """
    (folder / SETTINGS_NAME).unlink(missing_ok=True)
    kinds = {"Transformer": "", "Pooling": "1_Pooling"}
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"{_LIBRARY}.models.{kind}"}
        for place, (kind, path) in enumerate(kinds.items())
    ]
    write_json(folder / MODULES_NAME, modules)
    (folder / kinds["Pooling"]).mkdir()
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    write_json(folder / kinds["Pooling"] / CONFIG_NAME, pooling)
    settings = {"max_seq_length": max_length, "do_lower_case": False}
    write_json(folder / SENTENCE_CONFIGS[0], settings)


def read_similarity(folder: Path, *, usual: str = "cosine") -> str:
    """How the folder's embeddings are compared: "cosine" or "dot"; ``usual`` if it does not say.

    Raises CheckpointError for a distance, by which sparsebert does not search.
    """
    named = model_settings(folder).get("similarity_fn_name") or usual
    if named not in ("cosine", "dot"):
        raise CheckpointError(
            f"{folder / SETTINGS_NAME}: 'similarity_fn_name' is {named!r}; documents can only "
            "be searched by cosine or dot."
        )
    return str(named)


def read_dimensions(folder: Path) -> int | None:
    """The dimensions that the folder's dense embeddings are truncated to; None if they are not.

    Raises CheckpointError.
    """
    kept = model_settings(folder).get("truncate_dim")
    if kept is not None and (type(kept) is not int or kept < 1):
        raise CheckpointError(
            f"{folder / SETTINGS_NAME}: 'truncate_dim' must be an integer of at least 1, not "
            f"{kept!r}."
        )
    return kept


# Old versions of the library named the file after the model; it uses the first that is not empty.
SENTENCE_CONFIGS = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_LONGEST = 1 << 20  # tokens; tokenizers write 1e30 for no limit
_TASKS = {
    "feature-extraction": "last_hidden_state",
    "sequence-classification": "logits",
    "fill-mask": "logits",
}
_OUTPUT_NAMES = {
    "feature-extraction": "token_embeddings",
    "sequence-classification": "scores",
    "fill-mask": "token_embeddings",
}


@dataclass(frozen=True)
class SentenceConfig:
    """``max_length`` is in tokens, None if the file sets no limit.

    ``lower_case`` says whether texts are lower-cased before the tokenizer sees them, and
    ``tokenizer`` overrides keys of tokenizer_config.json.
    """

    max_length: int | None = None
    lower_case: bool = False
    tokenizer: Mapping[str, Any] = field(default_factory=dict)


def transformer_settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file that says how the transformer reads texts, and what it says."""
    return _first_file(transformer_folder(folder))


def transformer_task(folder: Path) -> Any:
    """What the next module reads: hidden states for "feature-extraction", else logits."""
    _, settings = transformer_settings(folder)
    legacy = any(module.kind == "MLMTransformer" for module in read_modules(folder))
    return settings.get("transformer_task", "fill-mask" if legacy else "feature-extraction")


def read_sentence_config(folder: Path) -> SentenceConfig:
    """The settings in the file; the defaults for a folder that lists no transformer module.

    Raises CheckpointError for a key that makes sentence-transformers compute something else.
    """
    if not any(module.kind in TRANSFORMERS for module in read_modules(folder)):
        return SentenceConfig()
    transformer = transformer_folder(folder)
    file, settings = _first_file(transformer)
    SENTENCE_CONFIG.check(settings, file)
    _check_output(settings, transformer_task(folder), file)
    _check_model(settings, ("config_args", "config_kwargs"), CONFIG_KWARGS, transformer, file)
    _check_model(settings, ("model_args", "model_kwargs"), MODEL_KWARGS, transformer, file)
    tokenizer = _tokenizer_settings(settings, file)
    limits = [
        _text_length(settings, file),
        _length(tokenizer.pop("model_max_length", None), file),
        _length(settings.get("max_seq_length"), file),
    ]
    return SentenceConfig(
        next((limit for limit in limits if limit is not None), None),
        bool(settings.get("do_lower_case")),
        tokenizer,
    )


def _first_file(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file that the library reads, and its contents."""
    for file in (folder / name for name in SENTENCE_CONFIGS):
        if has_file(file) and (settings := read_object(file)):
            return file, settings
    return folder / SENTENCE_CONFIGS[0], {}


def _check_output(settings: Mapping[str, Any], task: Any, file: Path) -> None:
    """CheckpointError unless texts go to the model and its plain output to the next module."""
    if not isinstance(task, str) or task not in _TASKS:
        raise CheckpointError(
            f"{file}: the transformer_task {task!r} is not supported; use one of "
            f"{', '.join(_TASKS)}."
        )
    modalities = settings.get("modality_config")
    if modalities is None:
        return
    text = modalities.get("text") if isinstance(modalities, dict) else None
    wanted = {"method": "forward", "method_output_name": _TASKS[task]}
    if not isinstance(text, dict) or {**text, **_single_output(text)} != wanted:
        raise CheckpointError(
            f"{file}: its modality_config uses an output of the model other than {_TASKS[task]}, "
            "which sparsebert does not support."
        )
    if "message" in modalities:
        raise CheckpointError(
            f"{file}: its modality_config turns texts into chat messages, which sparsebert does "
            "not support."
        )
    name = settings.get("module_output_name", _OUTPUT_NAMES[task])
    if name != _OUTPUT_NAMES[task]:
        raise CheckpointError(
            f"{file}: the module_output_name {name!r} is not supported, only "
            f"'{_OUTPUT_NAMES[task]}'."
        )


def _single_output(text: Mapping[str, Any]) -> dict[str, Any]:
    """The name of the output, if it is a list of one name."""
    names = text.get("method_output_name")
    return {"method_output_name": names[0]} if isinstance(names, list) and len(names) == 1 else {}


def _handed_on(
    settings: Mapping[str, Any], names: tuple[str, ...], file: Path
) -> tuple[str, dict[str, Any]]:
    """The first of ``names`` that is present: its place, for messages, and its value."""
    name = next((name for name in names if name in settings), names[0])
    given = settings.get(name) or {}
    if not isinstance(given, dict):
        raise CheckpointError(f"{file}: '{name}' must hold a JSON object.")
    return f"{file}: {name}", given


def _check_model(
    settings: Mapping[str, Any], names: tuple[str, ...], keys: KnownKeys, folder: Path, file: Path
) -> None:
    """Raise CheckpointError for settings that change the model that config.json describes."""
    where, given = _handed_on(settings, names, file)
    config = folder / CONFIG_NAME
    known = read_object(config) if given and has_file(config) else {}
    absent = object()
    keys.check(
        {key: value for key, value in given.items() if known.get(key, absent) != value}, where
    )


def _tokenizer_settings(settings: Mapping[str, Any], file: Path) -> dict[str, Any]:
    where, given = _handed_on(settings, ("tokenizer_args", "processor_kwargs"), file)
    PROCESSOR_KWARGS.check(given, where)
    return {key: value for key, value in given.items() if key in PROCESSOR_KWARGS.honoured}


def _text_length(settings: Mapping[str, Any], file: Path) -> int | None:
    """The length limit among the per-call settings; CheckpointError for others that matter."""
    where, called = _handed_on(settings, ("processing_kwargs",), file)
    text = {**(called.get("text") or {}), **(called.get("common") or {})}
    PROCESSING_KWARGS.check(text, where)
    return _length(text.get("max_length"), file)


def _length(value: object, where: Path) -> int | None:
    """A length limit in tokens; None if the file has none, or the tokenizers' 1e30."""
    if value is None or (isinstance(value, int | float) and value > _LONGEST):
        return None
    if type(value) is not int or value < 1:
        raise CheckpointError(f"{where}: the length limit {value!r} is not a number of tokens.")
    return value
