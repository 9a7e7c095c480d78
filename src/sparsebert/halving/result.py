"""The result of `halve` as plain data, which is all that the report shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sparsebert.bench import BenchResult
from sparsebert.bench.result import Row, ratio_of
from sparsebert.halving.judgement import Judgement

OURS = "sparsebert-int8"
_APART = 1.5  # upper quartile of the times divided by the lower


@dataclass(frozen=True)
class StepTaken:
    """One step, the command that does the same by hand, and its seconds (None: done earlier)."""

    title: str
    command: str
    seconds: float | None


@dataclass(frozen=True)
class LayerZeros:
    """Share of zeros in one linear layer, 0 to 1."""

    name: str
    zeros: float


@dataclass
class HalveResult:
    """The result of `halve`: a halved model in ``out``, ready to serve.

    ``judgement`` compares it with the dense model. ``promise`` is how many points might be lost,
    and ``held`` says whether no more were. ``dense_bytes`` and ``bytes`` are the sizes of the
    weights.
    """

    model: str
    out: str
    said: list[str]
    effort: str
    promise: float
    judgement: Judgement
    dense_bytes: int
    bytes: int
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    steps: list[StepTaken] = field(default_factory=list)
    layers: list[LayerZeros] = field(default_factory=list)
    bench: BenchResult | None = None

    @property
    def held(self) -> bool:
        """Whether no more points were lost than promised."""
        return self.judgement.drop <= self.promise

    def sentences(self) -> list[str]:
        """The result in words, one line each: what was kept, size, speed and notes."""
        size = f"{self.bytes / 1e6:.1f} MB of weights, dense {self.dense_bytes / 1e6:.1f} MB"
        lines = [self.judgement.sentence(), f"{self.out}: {size}."]
        if self.bench is not None:
            lines += speed_sentences(self.bench)
        if not self.held:
            more = "standard" if self.effort == "quick" else "thorough"
            lines.append(
                f"It lost {self.judgement.drop:.2f} points, but at most {self.promise:g} were "
                f"allowed: use more texts of the kind that the model reads, or --effort {more}."
            )
        return lines + [f"note: {note}" for note in self.notes]

    def as_dict(self) -> dict[str, Any]:
        """All fields as a dict, ready for JSON."""
        return {
            **asdict(self),
            "judgement": self.judgement.as_dict(),
            "bench": self.bench.as_dict() if self.bench else None,
            "promise": self.promise if math.isfinite(self.promise) else None,
            "held": self.held,
        }


@dataclass(frozen=True)
class Speedup:
    """How many ``times`` as fast as ``peer`` the halved model is, the median over rounds.

    ``shape`` is batch x tokens.
    """

    peer: str
    shape: str
    times: float


def speedups(bench: BenchResult) -> list[Speedup]:
    """At each shape, over torch and over the fastest engine of others, if that is not torch."""
    found = []
    for shape in dict.fromkeys(str(row.shape) for row in bench.rows):
        rows = {row.engine: row for row in bench.rows if str(row.shape) == shape}
        mine = rows.get(OURS)
        others = [row for name, row in rows.items() if not name.startswith("sparsebert")]
        if mine is None or not others:
            continue
        fastest = min(others, key=lambda row: row.median_ms)
        shown = [row for row in others if row.engine == "torch" or row is fastest]
        found += [
            Speedup(row.engine, shape, ratio_of(row.engine, _samples(rows), OURS).median)
            for row in shown
        ]
    return found


def speed_sentences(bench: BenchResult) -> list[str]:
    """One line per peer: the speed-up over it, shape by shape."""
    lines = []
    found = speedups(bench)
    for peer in dict.fromkeys(each.peer for each in found):
        at = ", ".join(f"{each.times:.1f} at {each.shape}" for each in found if each.peer == peer)
        fastest = "" if peer == "torch" else ", the fastest other engine there"
        lines.append(f"Speed-up over {peer}{fastest}: {at} (batch x tokens).")
    return lines


def unsteady(bench: BenchResult) -> str | None:
    """A note if the halved model's own times vary so much that their ratios mean little."""
    apart = [row for row in bench.rows if row.engine == OURS and row.q3_ms > _APART * row.q1_ms]
    if not apart:
        return None
    shapes = ", ".join(str(row.shape) for row in apart)
    return (
        f"the machine was busy with other work during the benchmark (times at {shapes} vary "
        "widely): measure again with `sparsebert bench` when it is idle."
    )


def _samples(rows: Mapping[str, Row]) -> dict[str, tuple[float, ...]]:
    return {name: row.samples_ms for name, row in rows.items()}
