"""Which peer is the fastest, and by how much our engines beat it.

A ratio is peer time / our time, so above 1 we are faster. It is taken inside each round, between
turns a moment apart, and the median over rounds is reported: it holds still where times do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

OUR = "sparsebert-"
OUR_DENSE = "sparsebert-dense-"


@dataclass(frozen=True)
class Ratio:
    """``peer``'s time / our time: median and quartiles over rounds."""

    peer: str
    median: float
    q1: float
    q3: float


@dataclass(frozen=True)
class Comparison:
    """One of our engines at one shape; None where there is nothing to compare with."""

    shape: str
    engine: str
    peer: Ratio | None
    """The fastest engine that is not ours."""
    same_precision: Ratio | None
    """The fastest of those that compute in the same precision."""
    dense: Ratio | None
    """Our own engine with the zeros stored and multiplied: what skipping them brings."""


def ratio_of(peer: str, times: Mapping[str, Sequence[float]], engine: str) -> Ratio:
    """``peer``'s time / ``engine``'s, round by round; ``times`` are turns of equal number."""
    ratios = np.asarray(times[peer]) / np.asarray(times[engine])
    q1, median, q3 = np.percentile(ratios, [25, 50, 75])
    return Ratio(peer, float(median), float(q1), float(q3))


def compare(
    shape: str, times: Mapping[str, Sequence[float]], precisions: Mapping[str, str]
) -> list[Comparison]:
    """Each of our sparse engines against the fastest peers, by median time."""
    peers = sorted(
        (name for name in times if not name.startswith(OUR)),
        key=lambda name: float(np.median(times[name])),
    )

    def against(names: Sequence[str], engine: str) -> Ratio | None:
        return ratio_of(names[0], times, engine) if names else None

    found = []
    for engine in times:
        if not engine.startswith(OUR) or engine.startswith(OUR_DENSE):
            continue
        alike = [name for name in peers if precisions[name] == precisions[engine]]
        dense = OUR_DENSE + engine.removeprefix(OUR)
        found.append(
            Comparison(
                shape,
                engine,
                against(peers, engine),
                against(alike, engine),
                against([dense] if dense in times else [], engine),
            )
        )
    return found
