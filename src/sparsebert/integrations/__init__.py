"""The engine behind the interfaces of other libraries, which must be installed: a module for each.

| module | for users of |
|---|---|
| `transformers` | ``transformers.pipeline`` |
| `sentence_transformers` | sentence-transformers' four classes |
| `langchain` | LangChain's ``Embeddings`` and document compressors |
| `llama_index` | LlamaIndex's ``BaseEmbedding`` and node postprocessors |

What `langchain` and `llama_index` share is defined here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from sparsebert.errors import InputError
from sparsebert.inference import Model, load
from sparsebert.inference.labelling import apply_function


def load_reranker(model: str | Path | Model, threads: int | None = None) -> Model:
    """Load a model that can `Model.rerank`. InputError for other models."""
    found = model if isinstance(model, Model) else load(model, threads=threads)
    if not found.is_reranker:
        raise InputError(
            f"{found.name} is not a reranker, that is, a sequence-classification model with one "
            "label or a multi-vector model (ColBERT)."
        )
    return found


def refuse_unknown(given: Collection[str], known: Collection[str]) -> None:
    """InputError for an argument that is not a field of a class: pydantic would ignore it."""
    for name in given:
        if name not in known:
            raise InputError(f"there is no argument {name}; there are {', '.join(known)}.")


def relevance(
    model: Model, pairs: Sequence[tuple[str, str]], *, batch_size: int = 32
) -> list[float]:
    """A cross-encoder's relevance of the text to the query for each pair (query, text).

    Higher is better. The score of `Model.rerank`: from 0 to 1 (the sigmoid of the logit), or the
    logit itself for a regression model or one whose folder says Identity.
    """
    logits = model.logits(list(pairs), batch_size=batch_size)
    scores: list[float] = apply_function(logits, model.relevance_function)[:, 0].tolist()
    return scores
