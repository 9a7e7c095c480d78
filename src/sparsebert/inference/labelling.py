"""Labels with scores from a head's logits: per text, per token, or for a masked token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import ScoreFunction
from sparsebert.errors import InputError
from sparsebert.inference.sequences import LocatedTokens

Floats = npt.NDArray[np.float32]


class LabelScore(TypedDict):
    """A label and its score: a probability, or the logit itself (regression, Identity)."""

    label: str
    score: float


class TaggedToken(TypedDict):
    """A token's text, characters ``[start, end)``, likeliest label and the label's probability."""

    text: str
    label: str
    score: float
    start: int
    end: int


class FilledMask(TypedDict):
    """The text of a candidate for the masked token, and its probability."""

    token: str
    score: float


class RankedDocument(TypedDict):
    """A document's index in the list, its relevance, and its text."""

    index: int
    score: float
    text: str


def softmax(logits: Floats) -> Floats:
    """Along the last axis; float32 in and out."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)) that does not overflow; float32 in and out."""
    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1, small) / (1 + small))


def apply_function(logits: Floats, function: ScoreFunction) -> Floats:
    """Scores of logits ``[texts, labels]``; `read_score_function` gives a model's function."""
    if function == "none":
        return logits
    return sigmoid(logits) if function == "sigmoid" else softmax(logits)


def label_scores(
    scores: Floats, labels: Sequence[str], top_k: int | None
) -> list[list[LabelScore]]:
    """For each row of ``scores`` ``[texts, labels]`` its ``top_k`` labels, best first.

    Equal scores keep the order of the labels; None asks for all of them.
    """
    check_count("top_k", top_k)
    order = np.argsort(-scores, axis=-1, kind="stable")[:, :top_k]
    return [
        [{"label": labels[index], "score": float(row[index])} for index in best]
        for row, best in zip(scores, order, strict=True)
    ]


def tagged_tokens(
    logits: Floats, located: LocatedTokens, text: str, labels: Sequence[str]
) -> list[TaggedToken]:
    """The likeliest label of each token of ``text``; ``logits`` is ``[tokens, labels]``."""
    scores = softmax(logits)
    best = scores.argmax(axis=-1)
    return [
        {
            "text": text[start:end],
            "label": labels[best[token]],
            "score": float(scores[token, best[token]]),
            "start": int(start),
            "end": int(end),
        }
        for token, (start, end) in enumerate(located.offsets)
        if start >= 0
    ]


def check_count(name: str, count: int | None) -> None:
    """InputError unless ``count`` is None or an integer of at least 1."""
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise InputError(f"{name} must be an integer of at least 1, not {count!r}.")
