"""A metric of the user's own: a Python function of what is right and what was predicted.

It is called once a split as ``metric(expected, predicted)``, the order of scikit-learn's metrics,
and returns a number, the larger the better. Both are lists or arrays with an entry a row:

    classification        names of classes
    several labels        the names of a row's labels, a list
    regression            numbers
    named entities        the labels of a row's words, a list of names
    question answering    expected: a list of the accepted answers; predicted: a text
    pairs                 the scores; the cosines
    retrieval             an entry a query: how relevant which document is, {document: relevance};
                          the documents found, best first, 100 at most

Only its name is recorded, in training.json and with the scores: nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from sparsebert.errors import DataError

Metric = Callable[[Any, Any], float]


@dataclass(frozen=True)
class UserMetric:
    """A function and the name that its values go by."""

    name: str
    function: Metric

    def score(self, expected: Any, predicted: Any) -> dict[str, float]:
        """The value by its name. DataError if it is not a number."""
        value = self.function(expected, predicted)
        try:
            return {self.name: float(value)}
        except (TypeError, ValueError) as fault:
            raise DataError(
                f"the metric {self.name} must return a number, and returned {value!r}."
            ) from fault


def user_metric(metric: Metric | None, known: Collection[str]) -> UserMetric | None:
    """The function with its name; None for None.

    Raises DataError for what cannot be called, has no name of its own (such as a lambda) or goes by
    the name of one of the task's metrics, which are ``known``.
    """
    if metric is None:
        return None
    if not callable(metric):
        raise DataError(f"metric must be a function of (expected, predicted), not {metric!r}.")
    name = getattr(metric, "__name__", "")
    if not isinstance(name, str) or not name.isidentifier():
        raise DataError(
            f"the metric {metric!r} has no name to be recorded by: give a function made with def."
        )
    if name in known:
        raise DataError(f"the task has a metric {name} already: give yours another name.")
    return UserMetric(name, metric)
