"""How well texts fit a query, by a cross-encoder: what rerankers of every library need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparsebert.checkpoint import Head
from sparsebert.errors import InputError
from sparsebert.inference import Model, load
from sparsebert.inference.labelling import apply_function


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
    """For each query with a text a number, more where the text fits better.

    The score that `Model.classify` gives: from 0 to 1 (the sigmoid of the logit), or the number
    itself for a regression model or one whose folder names Identity.
    """
    if not pairs:
        return []
    logits = model.logits(list(pairs), batch_size=batch_size)
    scores: list[float] = apply_function(logits, model.score_function)[:, 0].tolist()
    return scores
