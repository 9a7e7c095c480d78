"""A user's own metric: a Python function of the expected and the predicted values.

It is called once per split as ``metric(expected, predicted)``, the order of scikit-learn's metrics,
and returns a number where larger is better. Both are lists or arrays with one entry per row:

    classification        class names
    several labels        the names of a row's labels, a list
    regression            numbers
    named entities        the labels of a row's words, a list of names
    question answering    expected: a list of the accepted answers; predicted: a text
    pairs                 expected: the scores; predicted: the cosines
    retrieval             one entry per query; expected: {document: relevance} of the relevant ones;
                          predicted: the documents found, best first, at most 100

Only its name is recorded, in training.json and with the scores; nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from sparsebert.errors import DataError

Metric = Callable[[Any, Any], float]


@dataclass(frozen=True)
class UserMetric:
    """A function and the name under which its values are reported."""

    name: str
    function: Metric

    def score(self, expected: Any, predicted: Any) -> dict[str, float]:
        """The value under the metric's name. DataError if it is not a number."""
        value = self.function(expected, predicted)
        try:
            return {self.name: float(value)}
        except (TypeError, ValueError) as fault:
            raise DataError(
                f"the metric {self.name} must return a number, but returned {value!r}."
            ) from fault


def user_metric(metric: Metric | None, known: Collection[str]) -> UserMetric | None:
    """The function with its name; None for None.

    Raises DataError if it cannot be called, has no name of its own (such as a lambda), or has the
    name of one of the task's metrics, ``known``.
    """
    if metric is None:
        return None
    if not callable(metric):
        raise DataError(f"metric must be a function of (expected, predicted), not {metric!r}.")
    name = getattr(metric, "__name__", "")
    if not isinstance(name, str) or not name.isidentifier():
        raise DataError(
            f"the metric {metric!r} has no name to record: pass a function defined with def."
        )
    if name in known:
        raise DataError(f"the task already has a metric {name}: give yours another name.")
    return UserMetric(name, metric)
