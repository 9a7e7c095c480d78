"""Scores of questions that may have no answer, as SQuAD v2's own script has them.

A question without an answer is right if the model says that there is none, and wrong otherwise. By
how much no answer must be likelier than the best one is the threshold; the one that would have been
best on the rows themselves is told, and flatters their score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sparsebert.evaluation.metrics import Scores, answer_scores
from sparsebert.tasks.squad import Answers

Floats = npt.NDArray[np.float64]


def said_texts(texts: Sequence[str], nulls: Floats, threshold: float) -> list[str]:
    """What is answered: the best span, or "" where none is likelier by more than ``threshold``.

    ``nulls`` is ``[questions]``: the score of no answer less that of the best span, in logits.
    """
    return ["" if null > threshold else text for text, null in zip(texts, nulls, strict=True)]


def unanswerable_scores(
    metrics: Sequence[str],
    texts: Sequence[str],
    nulls: Floats,
    expected: Sequence[Answers],
    threshold: float,
) -> Scores:
    """Score the best spans and how likely no answer is; see `said_texts`.

    ``by_class`` has the questions with an answer (HasAns) and those without (NoAns).
    """
    said = said_texts(texts, nulls, threshold)
    values = answer_scores(metrics, said, expected).values
    by_class = {}
    for name, has in (("HasAns", True), ("NoAns", False)):
        rows = [row for row, answers in enumerate(expected) if bool(answers.texts) is has]
        if rows:
            some = [said[row] for row in rows], [expected[row] for row in rows]
            part = answer_scores(metrics, *some)
            by_class[name] = {**part.values, "rows": len(rows)}
    best, score = best_threshold(metrics[-1], texts, nulls, expected)
    note = (
        f"the threshold was {threshold:g}; the best on these rows is {best:.2f}, with "
        f"{metrics[-1]} {score:.1f}, which flatters them: choose it on others (--threshold)."
    )
    return Scores(values, [note], by_class)


def best_threshold(
    metric: str, texts: Sequence[str], nulls: Floats, expected: Sequence[Answers]
) -> tuple[float, float]:
    """The threshold of the highest mean of ``metric``, and that mean in percent."""
    spans = np.array(
        [
            answer_scores((metric,), [text], [answers]).values[metric]
            for text, answers in zip(texts, expected, strict=True)
        ]
    )
    silent = np.array([0.0 if answers.texts else 100.0 for answers in expected])
    order = np.argsort(nulls, kind="stable")
    ranked = np.asarray(nulls, np.float64)[order]
    # After the first k are answered, in the order in which a rising threshold lets them be.
    sums = silent.sum() + np.concatenate([[0.0], np.cumsum((spans - silent)[order])])
    sums[1:-1][ranked[:-1] == ranked[1:]] = -np.inf  # equal ones go together
    best = int(np.argmax(sums))
    if best == 0:
        threshold = ranked[0] - 1.0
    elif best == len(ranked):
        threshold = ranked[-1]
    else:
        threshold = (ranked[best - 1] + ranked[best]) / 2
    return float(threshold), float(sums[best] / len(ranked))
