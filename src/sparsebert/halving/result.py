"""What `halve` came to, as plain data: the report shows nothing else."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from sparsebert.bench import BenchResult
from sparsebert.halving.judgement import Judgement


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
    """A halved model in ``out``, ready to serve.

    ``promise`` is how many points might be lost, and ``held`` whether no more were.
    ``dense_bytes`` and ``bytes`` are those of the weights files.
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
        """Whether the promise is held."""
        return self.judgement.drop <= self.promise

    def sentences(self) -> list[str]:
        """What a user wants to know, a line each."""
        size = f"{self.bytes / 1e6:.1f} MB of weights, dense {self.dense_bytes / 1e6:.1f} MB"
        lines = [f"{self.out}: {size}.", self.judgement.sentence()]
        if not self.held:
            more = "standard" if self.effort == "quick" else "thorough"
            lines.append(
                f"It lost {self.judgement.drop:.2f} points where {self.promise:g} were allowed: "
                f"give more texts of the kind that it reads, or --effort {more}."
            )
        return lines + [f"note: {note}" for note in self.notes]

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            **asdict(self),
            "judgement": self.judgement.as_dict(),
            "bench": self.bench.as_dict() if self.bench else None,
            "promise": self.promise if math.isfinite(self.promise) else None,
            "held": self.held,
        }
