"""The effort of a halving, and the settings that fit into the time it allows."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from sparsebert.errors import InputError
from sparsebert.halving.estimate import Pace

_STEPS_AT_LEAST = 300
_MOST_EPOCHS = 20
BATCH = 32


@dataclass(frozen=True)
class Effort:
    """At most ``rounds`` of distillation, each of ``epochs`` (more if there are few examples) and
    at most ``seconds``.

    Another round follows only if the one before gained ``worth`` points.
    """

    name: str
    rounds: int
    epochs: int
    seconds: float
    worth: float


EFFORTS = {
    each.name: each
    for each in (
        Effort("quick", 1, 1, 180, 0),
        Effort("standard", 2, 4, 1800, 0.2),
        Effort("thorough", 4, 8, math.inf, 0),
    )
}


def get_effort(name: str) -> Effort:
    """The effort of this name. Raises InputError."""
    if name not in EFFORTS:
        raise InputError(f"'{name}' is not an effort: choose {', '.join(EFFORTS)}.")
    return EFFORTS[name]


@dataclass(frozen=True)
class Plan:
    """What a run started with: stored beside it, so that it resumes with the same settings.

    ``inputs`` are the arguments that decide the result. ``max_rows`` limits a round to a fixed
    selection of the examples; None uses all. ``estimate`` is in seconds, for the longest round.
    """

    inputs: dict[str, Any]
    rounds: int
    epochs: float
    max_rows: int | None
    estimate: float

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)

    def settings(self) -> dict[str, Any]:
        """The settings of a round of distillation, for the report; empty if there is none."""
        if self.rounds == 0:
            return {}
        return {
            "rounds of distillation, at most": self.rounds,
            "epochs of a round": self.epochs,
            "examples of a round": self.max_rows or "all",
        }


def make_plan(
    inputs: dict[str, Any],
    effort: Effort,
    examples: int,
    pace: Pace,
    *,
    texts_alone: bool = False,
) -> Plan:
    """Epochs and examples of a round that takes no longer than the effort allows.

    What fits is decided by ``pace.work``; the plan's estimate is by the clock, at its current pace.

    Few examples are seen more often, up to 20 times, so that there are 300 steps. For a task, a
    student needs to see each example ``effort.epochs`` times, so too many examples are cut to a
    selection. From ``texts_alone``, new texts teach more than those seen before, so many texts are
    seen fewer times each, but at least once. Without examples, there is no round.
    """
    if examples == 0:
        return Plan(inputs, 0, 0, None, 0.0)
    wanted = math.ceil(_STEPS_AT_LEAST * BATCH / examples)
    epochs = float(min(max(effort.epochs, wanted), max(_MOST_EPOCHS, effort.epochs)))
    affordable = effort.seconds / max(pace.work, 1e-9)  # rows, counting repetitions
    rows = examples
    if texts_alone and examples <= affordable < examples * epochs:
        epochs = math.floor(100 * affordable / examples) / 100
    elif affordable < examples * epochs:
        epochs = 1.0 if texts_alone else epochs
        rows = max(int(affordable / epochs), BATCH)
    return Plan(
        inputs,
        effort.rounds,
        epochs,
        rows if rows < examples else None,
        rows * epochs * pace.clock,
    )
