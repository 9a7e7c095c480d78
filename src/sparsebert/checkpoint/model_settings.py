"""config_sentence_transformers.json: a model's prompts, how its embeddings are compared and cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.known_keys import SENTENCE_TRANSFORMERS
from sparsebert.checkpoint.modules import MODULES_NAME
from sparsebert.errors import CheckpointError, InputError

MODEL_SETTINGS_NAME = "config_sentence_transformers.json"
_RERANKER = "CrossEncoder"
_EMBEDDERS = ("SentenceTransformer", "SparseEncoder", "MultiVectorEncoder", "ColBERT", None)
_DOCUMENTS = ("document", "passage", "corpus")  # the library's names of the prompt


def model_settings(folder: Path, *, reranker: bool = False) -> dict[str, Any]:
    """config_sentence_transformers.json of a model that embeds texts, or of a ``reranker``.

    Empty if sentence-transformers ignores it: without a modules.json, and for the other kind.
    Raises CheckpointError.
    """
    file = folder / MODEL_SETTINGS_NAME
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
    file, settings = folder / MODEL_SETTINGS_NAME, model_settings(folder, reranker=reranker)
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


def read_similarity(folder: Path, *, usual: str = "cosine") -> str:
    """How the folder's embeddings are compared: "cosine" or "dot"; ``usual`` if it does not say.

    Raises CheckpointError for a distance, by which sparsebert does not search.
    """
    named = model_settings(folder).get("similarity_fn_name") or usual
    if named not in ("cosine", "dot"):
        raise CheckpointError(
            f"{folder / MODEL_SETTINGS_NAME}: 'similarity_fn_name' is {named!r}; documents can "
            "only be searched by cosine or dot."
        )
    return str(named)


def read_dimensions(folder: Path) -> int | None:
    """The dimensions that the folder's dense embeddings are truncated to; None if they are not.

    Raises CheckpointError.
    """
    kept = model_settings(folder).get("truncate_dim")
    if kept is not None and (type(kept) is not int or kept < 1):
        raise CheckpointError(
            f"{folder / MODEL_SETTINGS_NAME}: 'truncate_dim' must be an integer of at least 1, not "
            f"{kept!r}."
        )
    return kept
