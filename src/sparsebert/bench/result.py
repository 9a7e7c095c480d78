"""What a measurement found, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from sparsebert.bench.shapes import Shape


@dataclass
class EngineReport:
    """One engine: how it was set up, or why it is not in the rows."""

    name: str
    reason: str | None = None
    """Why it did not run, or stopped running; None if it ran to the end."""
    version: str = ""
    settings: str = ""
    load_seconds: float | None = None
    peak_bytes: int | None = None
    """Peak resident memory of its process after loading and all runs."""


@dataclass(frozen=True)
class Row:
    """One engine at one shape. Times are milliseconds for one forward pass of the whole batch."""

    shape: Shape
    engine: str
    median_ms: float
    q1_ms: float
    q3_ms: float
    best_ms: float
    ratio: float | None
    """Median over rounds of this engine's time / the baseline's time in the same round."""


@dataclass
class BenchResult:
    """All rows, and everything needed to judge them."""

    model: str
    pattern: str
    machine: dict[str, str]
    threads: int
    rounds: int
    baseline: str | None
    """The engine that ratios are to: the first of our own that ran."""
    engines: list[EngineReport] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: shapes as ``"8x128"``."""
        result = asdict(self)
        result["rows"] = [{**asdict(row), "shape": str(row.shape)} for row in self.rows]
        return result
