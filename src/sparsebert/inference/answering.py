"""Answers to questions: the context in windows, the engine over all windows, the best spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from sparsebert.checkpoint import EncoderConfig
from sparsebert.checkpoint.trained_length import trained_length
from sparsebert.errors import InputError
from sparsebert.inference.batching import Floats
from sparsebert.inference.spans import Span, best_spans, merge_spans, probabilities
from sparsebert.inference.texts import as_string
from sparsebert.inference.tokenizing import LocatedTokens

_USUAL_LENGTH = 384  # tokens of question and context: what SQuAD models are fine-tuned with


class Answer(TypedDict):
    """A stretch of the context, its characters ``[start, end)``, its share of the n-best list."""

    text: str
    start: int
    end: int
    score: float


def window_length(config: EncoderConfig, limit: int) -> int:
    """Tokens of a question and a stretch of its context: as in the model's training, else 384.

    ``limit`` is the most that the model reads.
    """
    return min(trained_length(config.sparsity) or _USUAL_LENGTH, limit)


def as_questions(
    question: str | Sequence[str], context: str | Sequence[str]
) -> tuple[list[tuple[str, str]], bool]:
    """Question and context pairs, and whether the caller gave a single one.

    A single question may be put to many contexts, and many questions to one context. Raises
    InputError for what is not text, for empty text and for lists of different lengths.
    """
    single = isinstance(question, str) and isinstance(context, str)
    questions, contexts = _listed(question, "question"), _listed(context, "context")
    count = len(contexts) if isinstance(question, str) else len(questions)
    if isinstance(question, str):
        questions *= count
    if isinstance(context, str):
        contexts *= count
    if len(questions) != len(contexts):
        raise InputError(f"there are {len(questions)} questions and {len(contexts)} contexts.")
    return list(zip(questions, contexts, strict=True)), single


def best_answers(
    context: str,
    windows: Sequence[LocatedTokens],
    logits: Sequence[Floats],
    *,
    top_k: int,
    n_best: int,
    max_answer_length: int,
) -> list[Answer]:
    """The ``top_k`` answers from all windows of one context, best first.

    ``logits`` holds for each window ``[tokens, 2]``, start and end. The score is the softmax over
    the ``n_best`` spans. There is always an answer: where no pair of the n-best starts and ends
    fits, every pair of the context is searched.
    """
    spans = _search(windows, logits, n_best, max_answer_length)
    if not spans:
        longest = max(len(rows) for rows in logits)
        spans = _search(windows, logits, longest, max_answer_length)[:n_best]
    return [
        {
            "text": context[span.start_char : span.end_char],
            "start": span.start_char,
            "end": span.end_char,
            "score": float(share),
        }
        for span, share in zip(spans[:top_k], probabilities(spans), strict=False)
    ]


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
