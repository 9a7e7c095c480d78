"""What a measurement found, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from sparsebert.bench.comparison import Comparison, compare
from sparsebert.bench.shapes import Shape
from sparsebert.bench.texts import Texts
from sparsebert.frames import data_frame

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class EngineReport:
    """One engine: how it was set up, or why it is not in the rows."""

    name: str
    reason: str | None = None
    """Why it did not run, or stopped running; None if it ran to the end."""
    version: str = ""
    settings: str = ""
    load_seconds: float | None = None
    """The model's alone: libraries are imported before."""
    peak_bytes: int | None = None
    """Peak resident memory of its process after loading and all runs."""
    first_answer_seconds: float | None = None
    """From the call that loads to the end of the first batch's forward pass."""
    precision: str = "fp32"


@dataclass(frozen=True)
class Row:
    """One engine at one shape. Times are milliseconds for the whole batch, or the whole file."""

    shape: Shape | Texts
    engine: str
    median_ms: float
    q1_ms: float
    q3_ms: float
    best_ms: float
    ratio: float | None
    """Median over rounds of this engine's time / the baseline's time in the same round."""
    samples_ms: tuple[float, ...] = ()
    """The time of each round, in their order."""

    @property
    def texts_per_second(self) -> float:
        """At the median time."""
        return self.shape.texts / self.median_ms * 1e3


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

    def comparisons(self) -> list[Comparison]:
        """Our engines against the fastest peers, shape by shape."""
        precisions = {engine.name: engine.precision for engine in self.engines}
        times: dict[str, dict[str, tuple[float, ...]]] = {}
        for row in self.rows:
            times.setdefault(str(row.shape), {})[row.engine] = row.samples_ms
        return [each for shape in times for each in compare(shape, times[shape], precisions)]

    def to_pandas(self) -> pd.DataFrame:
        """One line for each shape and engine, times in milliseconds; needs [notebook]."""
        precisions = {engine.name: engine.precision for engine in self.engines}
        left_out = ("shape", "samples_ms")
        return data_frame(
            {
                "model": self.model,
                "pattern": self.pattern,
                "shape": str(row.shape),
                "precision": precisions.get(row.engine),
                **{key: value for key, value in asdict(row).items() if key not in left_out},
                "texts_per_second": row.texts_per_second,
            }
            for row in self.rows
        )

    def _repr_markdown_(self) -> str:
        from sparsebert.bench.tables import as_markdown

        return as_markdown(self)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: shapes as ``"8x128"``."""
        result = asdict(self)
        result["rows"] = [
            asdict(row) | {"shape": str(row.shape), "texts_per_second": row.texts_per_second}
            for row in self.rows
        ]
        result["comparisons"] = [asdict(each) for each in self.comparisons()]
        return result
