"""The engine behind the interfaces of other libraries, which must be installed: a module for each.

| module | for users of |
|---|---|
| `transformers` | ``transformers.pipeline`` |
| `sentence_transformers` | sentence-transformers' four classes |
| `langchain` | LangChain's ``Embeddings`` and document compressors |
| `llama_index` | LlamaIndex's ``BaseEmbedding`` and node postprocessors |

Both `langchain` and `llama_index` rerank with `relevance`, defined here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparsebert.checkpoint import Head
from sparsebert.errors import InputError
from sparsebert.inference import Model, load
from sparsebert.inference.labelling import apply_function


def load_reranker(model: str | Path | Model, threads: int | None = None) -> Model:
    """Load a cross-encoder: a sequence classifier with one label. InputError for other models."""
    found = model if isinstance(model, Model) else load(model, threads=threads)
    if found.config.head is not Head.SEQUENCE or len(found.config.labels) != 1:
        raise InputError(
            f"{found.name} is not a reranker, that is, a sequence-classification model with one "
            "label."
        )
    return found


def relevance(
    model: Model, pairs: Sequence[tuple[str, str]], *, batch_size: int = 32
) -> list[float]:
    """The relevance of the text to the query for each pair (query, text), higher is better.

    The score of `Model.rerank`: from 0 to 1 (the sigmoid of the logit), or the logit itself for a
    regression model or one whose folder says Identity.
    """
    if not pairs:
        return []
    logits = model.logits(list(pairs), batch_size=batch_size)
    scores: list[float] = apply_function(logits, model.relevance_function)[:, 0].tolist()
    return scores
