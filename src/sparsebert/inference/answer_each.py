"""Run a function over many items in one batch, so that an unusable item fails alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparsebert.errors import InputError
from sparsebert.inference.tokenizing import TruncationWarning

Work = Callable[[Any], Any]
"""Turns a list of items into their results, or a single item into its; raises InputError."""


@dataclass
class Answers:
    """One result per item: None where ``errors``, by index, has the reason.

    ``truncated`` items were longer than ``limit`` tokens, the first of them at ``first_truncated``.
    """

    results: list[Any]
    errors: dict[int, str] = field(default_factory=dict)
    truncated: int = 0
    first_truncated: int = 0
    limit: int = 0


def answer_each(items: Sequence[Any], work: Work) -> Answers:
    """Process all items at once, and halves of them, recursively, where one raises InputError.

    TruncationWarnings are counted, other warnings passed on.
    """
    answers = Answers([None] * len(items))
    _answer(items, 0, work, answers)
    return answers


def _answer(items: Sequence[Any], start: int, work: Work, answers: Answers) -> None:
    if not items:
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            # The error of a single item does not name an index.
            results = work(items) if len(items) > 1 else [work(items[0])]
        except InputError as error:
            if len(items) == 1:
                answers.errors[start] = str(error)
                return
            results = None
    if results is None:
        middle = len(items) // 2
        _answer(items[:middle], start, work, answers)
        _answer(items[middle:], start + middle, work, answers)
        return
    for index, result in zip(range(start, start + len(items)), results, strict=True):
        answers.results[index] = result
    for each in caught:
        if isinstance(each.message, TruncationWarning):
            if not answers.truncated:
                answers.first_truncated = start + each.message.first
            answers.truncated += each.message.count
            answers.limit = each.message.limit
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
