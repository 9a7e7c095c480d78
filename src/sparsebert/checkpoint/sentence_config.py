"""sentence_bert_config.json: how sentence-transformers reads the texts of a transformer.

The library reads that file only if modules.json lists the transformer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.known_keys import (
    CONFIG_KWARGS,
    MODEL_KWARGS,
    PROCESSING_KWARGS,
    PROCESSOR_KWARGS,
    SENTENCE_CONFIG,
    KnownKeys,
)
from sparsebert.checkpoint.modules import TRANSFORMERS, read_modules, transformer_folder
from sparsebert.errors import CheckpointError

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
