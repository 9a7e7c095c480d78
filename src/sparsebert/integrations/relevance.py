"""How well texts fit a query, by a cross-encoder: what rerankers of every library need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparsebert.checkpoint import Head
from sparsebert.errors import InputError
from sparsebert.inference import Model, load
from sparsebert.inference.labelling import sigmoid


def load_reranker(model: str | Path | Model, threads: int | None = None) -> Model:
    """A model that reads two texts together and gives one number; InputError for any other."""
    found = model if isinstance(model, Model) else load(model, threads=threads)
    if found.config.head is not Head.SEQUENCE or len(found.config.labels) != 1:
        raise InputError(
            f"{found.name} gives no relevance: a reranker is a sequence-classification model with "
            "one label."
        )
    return found


def relevance(
    model: Model, pairs: Sequence[tuple[str, str]], *, batch_size: int = 32
) -> list[float]:
    """For each query with a text a number from 0 to 1 (the sigmoid of the logit)."""
    if not pairs:
        return []
    scores: list[float] = sigmoid(model.logits(list(pairs), batch_size=batch_size)[:, 0]).tolist()
    return scores
