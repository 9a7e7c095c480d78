"""Extractive answers: from start and end logits to spans of text.

The n-best search of transformers' question-answering example (``postprocess_qa_predictions``),
which is also how SQuAD v1.1 scores are commonly computed: the ``n_best`` likeliest starts and
ends of each window are paired, pairs that cannot be an answer are dropped, and the rest is ranked
by the sum of both logits over all windows of a context.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``[start_char, end_char)`` of the context; ``score`` is the sum of both logits."""

    start_char: int
    end_char: int
    score: float


def best_spans(
    start_logits: npt.NDArray[np.floating],
    end_logits: npt.NDArray[np.floating],
    offsets: npt.NDArray[np.integer],
    *,
    n_best: int = 20,
    max_answer_length: int = 30,
) -> list[Span]:
    """The best spans of one window, best first; none if no pair of an n-best start and end fits.

    ``start_logits`` and ``end_logits`` are ``[tokens]``; ``offsets`` is ``[tokens, 2]``, the
    characters of each token in the context, -1 where a token is not of the context;
    ``max_answer_length`` counts tokens.
    """
    starts = np.argsort(-start_logits, kind="stable")[:n_best]
    ends = np.argsort(-end_logits, kind="stable")[:n_best]
    length = ends[None, :] - starts[:, None] + 1
    in_context = offsets[:, 0] >= 0
    possible = (length >= 1) & (length <= max_answer_length)
    possible &= in_context[starts][:, None] & in_context[ends][None, :]
    scores = (start_logits[starts][:, None] + end_logits[ends][None, :])[possible]
    first, last = (starts[:, None] + 0 * length)[possible], (ends[None, :] + 0 * length)[possible]
    return [
        Span(int(offsets[first[rank], 0]), int(offsets[last[rank], 1]), float(scores[rank]))
        for rank in np.argsort(-scores, kind="stable")[:n_best]
    ]


def merge_spans(windows: Iterable[Sequence[Span]], *, n_best: int = 20) -> list[Span]:
    """The best spans over all windows of a context, best first.

    Where windows overlap the same characters are found twice; the better of the two is kept.
    """
    ranked = sorted((span for spans in windows for span in spans), key=lambda span: -span.score)
    merged: dict[tuple[int, int], Span] = {}
    for span in ranked:
        merged.setdefault((span.start_char, span.end_char), span)
    return list(merged.values())[:n_best]


def probabilities(spans: Sequence[Span]) -> npt.NDArray[np.float64]:
    """Softmax over the scores of the n-best list, ``[spans]``."""
    if not spans:
        return np.zeros(0)
    scores = np.array([span.score for span in spans])
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())
