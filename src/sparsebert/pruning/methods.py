"""The pruning methods, in the table below.

`prune` takes one-shot methods. Those that need no data score the weights of a layer
(``scores(weight)``; the lowest of a group are pruned), and those that need calibration texts turn a
layer and its statistics into a pruned one (``prune_linear``, see `sparsebert.pruning.calibration`).
The other methods prune while `finetune` trains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from sparsebert.checkpoint.dtypes import Float32
from sparsebert.errors import PatternError
from sparsebert.patterns import Pattern
from sparsebert.pruning import criteria, second_order

if TYPE_CHECKING:
    from sparsebert.pruning.calibration import Linear, Statistics

CALIBRATION_ROWS = 1024  # texts to calibrate on by default

Scores = Callable[[Float32], Float32]


class PruneLinear(Protocol):
    """Turns a dense layer and its statistics into a pruned one."""

    def __call__(self, layer: Linear, statistics: Statistics, *, pattern: Pattern) -> Linear: ...


class When(str, Enum):
    """When a method prunes."""

    ONE_SHOT = "one-shot"
    FINE_TUNING = "fine-tuning"


class Needs(str, Enum):
    """What a method needs besides the weights."""

    NOTHING = "nothing"
    CALIBRATION = "calibration texts"
    GRADIENTS = "gradients"


@dataclass(frozen=True)
class Method:
    """One method; a one-shot method has either ``scores`` or ``prune_linear``."""

    name: str
    when: When
    needs: Needs
    about: str
    scores: Scores | None = None
    prune_linear: PruneLinear | None = None


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "magnitude",
            When.ONE_SHOT,
            Needs.NOTHING,
            "prunes small weights",
            scores=criteria.magnitude,
        ),
        Method(
            "wanda",
            When.ONE_SHOT,
            Needs.CALIBRATION,
            "prunes small weights on weak inputs",
            prune_linear=criteria.prune_by_wanda,
        ),
        Method(
            "second-order",
            When.ONE_SHOT,
            Needs.CALIBRATION,
            "prunes weights that the others can make up for, and refits the others",
            prune_linear=second_order.prune_linear,
        ),
        Method(
            "gradual",
            When.FINE_TUNING,
            Needs.NOTHING,
            "prunes the small weights of more and more groups",
        ),
        Method(
            "snip-momentum",
            When.FINE_TUNING,
            Needs.GRADIENTS,
            "prunes the weights that the loss misses least, in more and more groups",
        ),
    )
}


def method_names(when: When) -> list[str]:
    """The names of the methods that prune at that time, in the table's order."""
    return [method.name for method in METHODS.values() if method.when is when]


def get_method(name: str, when: When) -> Method:
    """The method of this name. PatternError lists the methods, or says which command takes it."""
    if name not in METHODS:
        raise PatternError(
            f"'{name}' is not a pruning method: choose from {', '.join(method_names(when))}."
        )
    method = METHODS[name]
    if method.when is not when:
        verb = "prune" if method.when is When.ONE_SHOT else "finetune"
        raise PatternError(f"'{name}' is a {method.when.value} method: use it in {verb} instead.")
    return method
