"""Extractive question answering: the n-best spans over the windows of a context.

The n-best search is that of transformers' question-answering example
(``postprocess_qa_predictions``), by which SQuAD v1.1 scores are commonly computed: the ``n_best``
likeliest starts and ends of each window are paired, pairs that cannot be an answer are dropped, and
the rest are ranked by the sum of both logits over all windows of a context.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import EncoderConfig
from sparsebert.checkpoint.sparsity import trained_length
from sparsebert.errors import InputError
from sparsebert.inference.batching import Floats
from sparsebert.inference.sequences import LocatedTokens
from sparsebert.inference.texts import as_string

_USUAL_LENGTH = 384  # tokens of question and context: what SQuAD models are fine-tuned with


class Answer(TypedDict):
    """A span of the context, characters ``[start, end)``, and its softmax over the n-best spans."""

    text: str
    start: int
    end: int
    score: float


def window_length(config: EncoderConfig, limit: int) -> int:
    """Maximum tokens of a question with a window of its context: as in training, else 384.

    ``limit`` is the model's maximum.
    """
    return min(trained_length(config.sparsity) or _USUAL_LENGTH, limit)


def as_questions(
    question: str | Sequence[str], context: str | Sequence[str]
) -> tuple[list[tuple[str, str]], bool]:
    """Question and context pairs, and whether the caller passed a single one.

    A single question may be asked of many contexts, and many questions of one context. Raises
    InputError for anything but text, for empty text and for lists of different lengths.
    """
    single = isinstance(question, str) and isinstance(context, str)
    questions, contexts = _listed(question, "question"), _listed(context, "context")
    count = len(contexts) if isinstance(question, str) else len(questions)
    if isinstance(question, str):
        questions *= count
    if isinstance(context, str):
        contexts *= count
    if len(questions) != len(contexts):
        raise InputError(
            f"there are {len(questions)} questions and {len(contexts)} contexts: pass the same "
            "number of each, or a single string for either."
        )
    return list(zip(questions, contexts, strict=True)), single


def best_answers(
    context: str,
    windows: Sequence[LocatedTokens],
    logits: Sequence[Floats],
    *,
    top_k: int,
    n_best: int,
    max_answer_length: int,
    null_threshold: float | None = None,
) -> list[Answer]:
    """The ``top_k`` answers from all windows of one context, best first.

    ``logits`` has ``[tokens, 2]``, start and end, for each window. The score is the softmax over
    the ``n_best`` spans. There is always an answer: if no pair of the n-best starts and ends is
    possible, all pairs of the context are searched. With ``null_threshold``, one of the answers may
    be that there is none, an empty text at 0: the threshold is subtracted from its logits
    (`null_score`), so that it comes first only if it exceeds the best span by more than that.
    """
    spans = _search(windows, logits, n_best, max_answer_length)
    if not spans:
        longest = max(len(rows) for rows in logits)
        spans = _search(windows, logits, longest, max_answer_length)[:n_best]
    if null_threshold is not None:
        spans.append(Span(0, 0, null_score(logits) - null_threshold))
        spans.sort(key=lambda span: -span.score)
    return [
        {
            "text": context[span.start_char : span.end_char],
            "start": span.start_char,
            "end": span.end_char,
            "score": float(share),
        }
        for span, share in zip(spans[:top_k], probabilities(spans), strict=False)
    ]


def null_score(windows: Sequence[npt.NDArray[np.floating]]) -> float:
    """The score of no answer, from the windows' logits ``[tokens, 2]``: the lowest of any window.

    A window without the answer points at its first token, so the one that does so least is the
    likeliest to contain it (transformers' ``postprocess_qa_predictions``).
    """
    return min(float(rows[0, 0]) + float(rows[0, 1]) for rows in windows)


def _search(
    windows: Sequence[LocatedTokens], logits: Sequence[Floats], n_best: int, max_answer_length: int
) -> list[Span]:
    found = (
        best_spans(
            np.ascontiguousarray(rows[:, 0]),
            np.ascontiguousarray(rows[:, 1]),
            window.offsets,
            n_best=n_best,
            max_answer_length=max_answer_length,
        )
        for window, rows in zip(windows, logits, strict=True)
    )
    return merge_spans(found, n_best=n_best)


def _listed(value: str | Sequence[str], name: str) -> list[str]:
    if isinstance(value, str):
        return [_filled(value, f"the {name}")]
    if isinstance(value, (bytes, dict)) or not hasattr(value, "__iter__"):
        raise InputError(f"{name} must be a string or a list of strings.")
    return [_filled(item, f"{name}[{index}]") for index, item in enumerate(value)]


def _filled(value: object, name: str) -> str:
    text = as_string(value, name)
    if not text.strip():
        raise InputError(f"{name} is empty: there is nothing for the model to read.")
    return text


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
    """The best spans of one window, best first; none if no n-best start and end make a span.

    ``start_logits`` and ``end_logits`` are ``[tokens]``; ``offsets`` is ``[tokens, 2]``, the
    characters of each token in the context, -1 for tokens outside it; ``max_answer_length`` counts
    tokens.
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

    Windows that overlap may find the same characters twice; the better of the two is kept.
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
