"""The one-shot pruning methods: each scores a layer's weights, and the lowest scores are pruned.

A method is a file with ``scores(weight) -> scores`` of the same shape, and a line of the table.
"""

from __future__ import annotations

from collections.abc import Callable

from sparsebert.checkpoint.dtypes import Float32
from sparsebert.errors import PatternError
from sparsebert.pruning import magnitude

Scores = Callable[[Float32], Float32]

METHODS: dict[str, Scores] = {
    "magnitude": magnitude.scores,
}


def get_method(name: str) -> Scores:
    """The scoring function of a method; PatternError lists the methods if there is none."""
    if name not in METHODS:
        raise PatternError(
            f"'{name}' is not a pruning method; there are {', '.join(sorted(METHODS))}."
        )
    return METHODS[name]
