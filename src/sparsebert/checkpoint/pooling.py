"""How a sentence-transformers folder says its token vectors become one vector a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.known_keys import NORMALIZE, POOLING
from sparsebert.checkpoint.modules import MODULES_NAME, read_modules
from sparsebert.checkpoint.prompts import read_prompts
from sparsebert.errors import CheckpointError

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


@dataclass(frozen=True)
class Pooling:
    """``mode`` is "mean", "cls", "max" or "mean_sqrt_len"; ``normalize`` scales to length 1.

    Without ``include_prompt`` the tokens of a prompt are not pooled, which sparsebert does not
    compute.
    """

    mode: str = "mean"
    normalize: bool = False
    include_prompt: bool = True


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
            settings = read_object(module.folder / "config.json")
            POOLING.check(settings, module.folder / "config.json")
            pooling = _mode(settings, module.folder / "config.json")
            include_prompt = _includes_prompt(settings, module.folder / "config.json")
        elif module.kind == "Normalize" and pooling is not None:
            normalize = True
            file = module.folder / "config.json"
            if module.folder != folder and file.is_file():
                NORMALIZE.check(read_object(file), file)
        elif module.kind not in ("Transformer", "Dropout"):  # dropout does nothing at inference
            raise CheckpointError(
                f"{where} asks for a '{module.kind}' module, which sparsebert does not compute; "
                "supported are Transformer, one Pooling and Normalize, in that order."
            )
    if pooling is None:
        return None
    if not include_prompt and read_prompts(folder).default:
        raise CheckpointError(
            f"{where}: its pooling leaves out the prompt that stands before each text "
            "(include_prompt is false), which sparsebert does not compute."
        )
    return Pooling(pooling, normalize, include_prompt)


def _includes_prompt(settings: Mapping[str, Any], where: Path) -> bool:
    stored = settings.get("include_prompt", True)
    if not isinstance(stored, bool):
        raise CheckpointError(f"{where}: include_prompt is {stored!r}, not true or false.")
    return stored


def _mode(settings: Mapping[str, Any], where: Path) -> str:
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
