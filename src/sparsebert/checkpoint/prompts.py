"""The texts that a sentence-transformers folder has set before the texts it embeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.known_keys import SENTENCE_TRANSFORMERS
from sparsebert.errors import CheckpointError

SETTINGS_NAME = "config_sentence_transformers.json"


@dataclass(frozen=True)
class Prompts:
    """``texts`` by name; ``default`` is the text that stands before each unless told otherwise."""

    texts: Mapping[str, str] = field(default_factory=dict)
    default: str = ""


def read_prompts(folder: Path) -> Prompts:
    """Those of config_sentence_transformers.json; none without it. Raises CheckpointError."""
    file = folder / SETTINGS_NAME
    settings = read_object(file) if file.is_file() else {}
    SENTENCE_TRANSFORMERS.check(settings, file)
    stored = settings.get("prompts") or {}
    if not isinstance(stored, dict) or not all(isinstance(t, str | None) for t in stored.values()):
        raise CheckpointError(f"{file}: 'prompts' must map names to texts.")
    # sentence-transformers knows these two names in every model, and reads null as no text.
    texts = {name: text or "" for name, text in stored.items()}
    named = settings.get("default_prompt_name")
    if named is None:
        return Prompts(texts)
    if named in ("query", "document"):
        return Prompts(texts, texts.get(named, ""))
    if not isinstance(named, str) or named not in texts:
        known = ", ".join(texts) or "none"
        raise CheckpointError(
            f"{file}: 'default_prompt_name' is {named!r}, which is none of its prompts: {known}."
        )
    return Prompts(texts, texts[named])
