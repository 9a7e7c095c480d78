"""Scores for questions that may have no answer, as computed by SQuAD v2's own script.

For a question without an answer, the model is right if it says that there is none. The threshold is
how much likelier "no answer" must be than the best span. A note gives the threshold that would have
scored best on the same rows, although that score flatters the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sparsebert.evaluation.metrics import Scores
from sparsebert.evaluation.squad import answer_scores, row_scores
from sparsebert.tasks.squad import Answers

Floats = npt.NDArray[np.float64]


def said_texts(texts: Sequence[str], nulls: Floats, threshold: float) -> list[str]:
    """The answers: the best span, or "" if "no answer" beats it by more than ``threshold``.

    ``nulls`` is ``[questions]``: the score of "no answer" minus that of the best span, in logits.
    """
    return ["" if null > threshold else text for text, null in zip(texts, nulls, strict=True)]


def unanswerable_scores(
    metrics: Sequence[str],
    texts: Sequence[str],
    nulls: Floats,
    expected: Sequence[Answers],
    threshold: float,
) -> Scores:
    """Score the best spans ``texts`` and the ``nulls`` of `said_texts`.

    ``by_class`` has the scores for questions with an answer (HasAns) and without (NoAns).
    """
    said = said_texts(texts, nulls, threshold)
    values = answer_scores(metrics, said, expected, unanswerable=True).values
    by_class = {}
    for name, has in (("HasAns", True), ("NoAns", False)):
        rows = [row for row, answers in enumerate(expected) if bool(answers.texts) is has]
        if rows:
            some = [said[row] for row in rows], [expected[row] for row in rows]
            part = answer_scores(metrics, *some, unanswerable=True)
            by_class[name] = {**part.values, "rows": len(rows)}
    best, score = best_threshold(metrics[-1], texts, nulls, expected)
    note = (
        f"the threshold was {threshold:g}; the best on these rows is {best:.2f}, with "
        f"{metrics[-1]} {score:.1f}, which flatters the model: choose --threshold on other rows."
    )
    return Scores(values, [note], by_class)


def best_threshold(
    metric: str, texts: Sequence[str], nulls: Floats, expected: Sequence[Answers]
) -> tuple[float, float]:
    """The threshold that gives the highest mean of ``metric``, and that mean in percent.

    It is finite: a question without any possible span, whose null is infinite, gets no answer at
    any threshold.
    """
    nulls = np.minimum(nulls, nulls[np.isfinite(nulls)].max(initial=0.0) + 1.0)
    spans = row_scores(metric, texts, expected, unanswerable=True)
    silent = np.array([0.0 if answers.texts else 100.0 for answers in expected])
    order = np.argsort(nulls, kind="stable")
    ranked = nulls[order]
    # sums[k]: total if the k questions with the lowest nulls are answered and the others are not.
    sums = silent.sum() + np.concatenate([[0.0], np.cumsum((spans - silent)[order])])
    sums[1:-1][ranked[:-1] == ranked[1:]] = -np.inf  # no threshold separates equal values
    best = int(np.argmax(sums))
    if best == 0:
        threshold = ranked[0] - 1.0
    elif best == len(ranked):
        threshold = ranked[-1]
    else:
        threshold = (ranked[best - 1] + ranked[best]) / 2
    return float(threshold), float(sums[best] / len(ranked))
