"""How a sentence-transformers folder says its token vectors become one vector a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.documents import inner_folder, read_json, read_object
from sparsebert.checkpoint.prompts import read_prompts
from sparsebert.errors import CheckpointError

MODULES_NAME = "modules.json"
# Old versions of the library named the file after the model; it takes the first that says anything.
SENTENCE_CONFIGS = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

# What the library's Pooling module calls a mode, first as since version 5.5, then as before.
_MODES = {
    "mean": "mean",
    "cls": "cls",
    "max": "max",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
}
_OLD_FLAGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_LONGEST = 1 << 20  # tokens: tokenizers write 1e30 where they know no limit


@dataclass(frozen=True)
class Pooling:
    """``mode`` is "mean", "cls", "max" or "mean_sqrt_len"; ``max_length`` is in tokens.

    ``lower_case`` asks that texts be lower-cased before the tokenizer sees them. Without
    ``include_prompt`` the tokens of a prompt are not pooled, which sparsebert does not compute.
    """

    mode: str
    normalize: bool
    max_length: int | None
    lower_case: bool = False
    include_prompt: bool = True


@dataclass(frozen=True)
class _Module:
    kind: str  # its class, without the module for sentence-transformers' own
    folder: Path


def transformer_folder(folder: Path) -> Path:
    """Where config.json and the weights are: ``folder``, or the sub-folder modules.json names."""
    for module in read_modules(folder):
        if module.kind == "Transformer":
            return module.folder
    return folder


def module_folders(folder: Path) -> list[Path]:
    """The sub-folders of a sentence-transformers folder that exist, without the transformer's."""
    return [
        module.folder
        for module in read_modules(folder)
        if module.kind != "Transformer" and module.folder != folder and module.folder.is_dir()
    ]


def read_pooling(folder: Path) -> Pooling | None:
    """The pooling of a sentence-transformers folder; None for any other folder.

    Raises CheckpointError for a module or a pooling mode that sparsebert does not compute (Dense,
    concatenated modes, ...), naming it.
    """
    modules = read_modules(folder)
    where = folder / MODULES_NAME
    pooling: str | None = None
    normalize, include_prompt = False, True
    for module in modules:
        if module.kind == "Pooling" and pooling is None:
            pooling = _mode(module.folder / "config.json")
            include_prompt = _includes_prompt(module.folder / "config.json")
        elif module.kind == "Normalize" and pooling is not None:
            normalize = True
        elif module.kind not in ("Transformer", "Dropout"):  # dropout does nothing at inference
            raise CheckpointError(
                f"{where} asks for a '{module.kind}' module, which sparsebert does not compute; "
                "supported are Transformer, one Pooling and Normalize, in that order."
            )
    if pooling is None:
        return None
    transformer = transformer_folder(folder)
    sentence, settings = _sentence_config(transformer)
    length = _length(settings.get("max_seq_length"), sentence)
    if length is None:
        tokenizer = transformer / "tokenizer_config.json"
        if tokenizer.is_file():
            length = _length(read_object(tokenizer).get("model_max_length"), tokenizer)
    lower_case = bool(settings.get("do_lower_case"))
    if not include_prompt and read_prompts(folder).default:
        raise CheckpointError(
            f"{where}: its pooling leaves out the prompt that stands before each text "
            "(include_prompt is false), which sparsebert does not compute."
        )
    return Pooling(pooling, normalize, length, lower_case, include_prompt)


def read_modules(folder: Path) -> list[_Module]:
    """The modules that modules.json lists, in order; none where there is no such file."""
    where = folder / MODULES_NAME
    if not where.is_file():
        return []
    listed = read_json(where)
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise CheckpointError(f"{where} must hold a list of modules.")
    modules = []
    for entry in listed:
        kind = entry.get("type")
        if not isinstance(kind, str) or not kind:
            raise CheckpointError(f"{where}: a module has no 'type'.")
        path = inner_folder(folder, entry.get("path", ""), where)
        if kind.startswith("sentence_transformers."):
            kind = kind.rsplit(".", 1)[-1]
        modules.append(_Module(kind, path))
    return modules


def _sentence_config(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file with the transformer module's settings, and what it says."""
    for file in (folder / name for name in SENTENCE_CONFIGS):
        if file.is_file() and (settings := read_object(file)):
            return file, settings
    return folder / SENTENCE_CONFIGS[0], {}


def _includes_prompt(where: Path) -> bool:
    stored = read_object(where).get("include_prompt", True)
    if not isinstance(stored, bool):
        raise CheckpointError(f"{where}: include_prompt is {stored!r}, not true or false.")
    return stored


def _mode(where: Path) -> str:
    settings = read_object(where)
    named: Any = settings.get("pooling_mode")
    if named is None:
        named = [mode for flag, mode in _OLD_FLAGS.items() if settings.get(flag)] or ["mean"]
    modes = named if isinstance(named, list) else [named]
    if len(modes) != 1:
        raise CheckpointError(
            f"{where} concatenates {len(modes)} pooling modes; sparsebert computes one."
        )
    if not isinstance(modes[0], str) or modes[0] not in _MODES:
        raise CheckpointError(
            f"{where}: pooling mode {modes[0]!r} is not supported; supported are "
            f"{', '.join(_MODES)}."
        )
    return _MODES[modes[0]]


def _length(value: object, where: Path) -> int | None:
    """A length limit in tokens; None where the file has none, or the tokenizers' endless 1e30."""
    if value is None or (isinstance(value, int | float) and value > _LONGEST):
        return None
    if type(value) is not int or value < 1:
        raise CheckpointError(f"{where}: the length limit {value!r} is not a number of tokens.")
    return value
