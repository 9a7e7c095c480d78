"""How many tokens of a text a fine-tuned model reads: as many as in its training.

A limit is no part of the weights, and what a model gives beyond it was never trained nor scored. So
fine-tuning writes it where other tools look for it: transformers' pipelines and CrossEncoder cut
texts at the tokenizer's ``model_max_length``, and so does SentenceTransformer where its own
settings name no other. The lineage tells it apart from the limit that a tokenizer came with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.json_files import read_object, write_json
from sparsebert.checkpoint.modules import MODULES_NAME
from sparsebert.checkpoint.sentence_config import SENTENCE_CONFIGS

_TOKENIZER = "tokenizer_config.json"
# Where sentence-transformers' settings may state a limit, and the entries that hand settings on.
_LIMITS = ("max_seq_length", "model_max_length", "max_length")
_HANDED_ON = ("processor_kwargs", "tokenizer_args", "processing_kwargs", "text", "common")


def write_trained_length(folder: Path, tokens: int) -> None:
    """Limit the texts of a folder, whose tokenizer is at its top, to so many tokens."""
    file = folder / _TOKENIZER
    settings = read_object(file) if file.is_file() else {}
    write_json(file, {**settings, "model_max_length": tokens})
    if not (folder / MODULES_NAME).is_file():
        return
    for file in (folder / name for name in SENTENCE_CONFIGS):
        if file.is_file():
            write_json(file, _limited(read_object(file), tokens))


def trained_length(sparsity: Mapping[str, Any] | None) -> int | None:
    """The limit of a model's last fine-tuning, by its ``sparsity`` record; None if it has none."""
    for step in reversed((sparsity or {}).get("lineage", [])):
        if step.get("step") == "finetune":
            length = (step.get("arguments") or {}).get("max_length")
            return length if type(length) is int and length > 0 else None
    return None


def _limited(settings: dict[str, Any], tokens: int) -> dict[str, Any]:
    """Settings in which every limit that is set is ``tokens``."""
    limited: dict[str, Any] = {}
    for name, value in settings.items():
        if name in _LIMITS and value is not None:
            value = tokens
        elif name in _HANDED_ON and isinstance(value, dict):
            value = _limited(value, tokens)
        limited[name] = value
    return limited
