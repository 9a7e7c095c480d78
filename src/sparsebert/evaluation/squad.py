"""Exact match and F1 of answer texts, as SQuAD's own scripts compute them.

Case, punctuation and articles do not count. Exact match says whether the remaining words are those
of an accepted answer, F1 how many they have in common; the best accepted answer counts. The scripts
of v1.1 and v2 differ on answers without such words, and SQuAD has some (".", marked by mistake):
v2 drops them from the accepted answers and takes such a prediction as "no answer", v1.1 gives it an
F1 of 0.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sparsebert.evaluation.metrics import Scores
from sparsebert.tasks.squad import Answers

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def answer_scores(
    metrics: Sequence[str],
    predicted: Sequence[str],
    expected: Sequence[Answers],
    *,
    unanswerable: bool = False,
) -> Scores:
    """The means of `row_scores` over all questions, for ``exact_match``, ``f1`` or both."""
    return Scores(
        {
            name: float(row_scores(name, predicted, expected, unanswerable=unanswerable).mean())
            for name in metrics
        }
    )


def row_scores(
    metric: str,
    predicted: Sequence[str],
    expected: Sequence[Answers],
    *,
    unanswerable: bool = False,
) -> npt.NDArray[np.float64]:
    """Each question's ``exact_match`` or ``f1`` in percent, float64 ``[questions]``.

    ``unanswerable``: as in SQuAD v2, where "" is right if a question has no answer.
    """
    score = {"exact_match": _same, "f1": _f1}[metric]
    found = []
    for text, answers in zip(predicted, expected, strict=True):
        given = _words(text)
        accepted = [_words(each) for each in answers.texts]
        if unanswerable:
            accepted = [each for each in accepted if each] or [[]]
        if unanswerable and not given:
            found.append(float(accepted == [[]]))
        else:
            found.append(max(score(given, each) for each in accepted))
    return 100 * np.array(found, np.float64)


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _same(given: list[str], accepted: list[str]) -> float:
    return float(given == accepted)


def _f1(given: list[str], accepted: list[str]) -> float:
    common = (Counter(given) & Counter(accepted)).total()
    return 2 * common / (len(given) + len(accepted)) if common else 0.0
