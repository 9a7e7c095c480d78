"""The result of a measurement: as plain data, as Markdown and as CSV (JSON is `as_dict`).

Engines are compared by ratios of peer time / our time, so above 1 we are faster. Each ratio is
taken within a round, between calls a moment apart, and the median over rounds is reported: it is
stable even if times are not.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.bench.workloads import Shape, Texts
from sparsebert.extras import data_frame

if TYPE_CHECKING:
    import pandas as pd

_MIB = 1024 * 1024

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
    """One of our engines at one shape; None if there is nothing to compare with."""

    shape: str
    engine: str
    peer: Ratio | None
    """The fastest engine that is not ours."""
    same_precision: Ratio | None
    """The fastest of those that compute in the same precision."""
    dense: Ratio | None
    """Our own engine with the zeros stored and multiplied: what skipping them gains."""


def ratio_of(peer: str, times: Mapping[str, Sequence[float]], engine: str) -> Ratio:
    """``peer``'s time / ``engine``'s, round by round; ``times`` are samples of equal number."""
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


@dataclass
class EngineReport:
    """One engine: how it was set up, or why it is not in the rows."""

    name: str
    reason: str | None = None
    """Why it did not run, or stopped running; None if it ran to the end."""
    version: str = ""
    settings: str = ""
    load_seconds: float | None = None
    """For the model alone: libraries are imported before."""
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
    """The engine that ratios are relative to: the first of our own that ran."""
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


def as_markdown(result: BenchResult) -> str:
    """The model and machine, the engines, their times, and ours against the fastest peers."""
    machine = result.machine
    lines = [
        f"model: {result.model}, {result.pattern}",
        f"machine: {machine['cpu']}, {machine['cores']} cores, {machine['instruction_set']}, "
        f"{machine['system']}, Python {machine['python']}",
        f"{result.threads} threads, {result.rounds} interleaved rounds, {machine['date']}",
        "",
        "| engine | version | settings | load, s | to first answer, s | peak memory, MiB |",
        "|---|---|---|---:|---:|---:|",
        *(_engine_line(engine) for engine in result.engines),
        "",
        "| batch x tokens | engine | median, ms | quartiles, ms | best, ms | texts/s "
        f"| {_ratio_title(result)} |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in result.rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append(
            f"| {row.shape} | {row.engine} | {row.median_ms:.2f} | "
            f"{row.q1_ms:.2f} - {row.q3_ms:.2f} | {row.best_ms:.2f} | "
            f"{row.texts_per_second:.1f} | {ratio} |"
        )
    comparisons = result.comparisons()
    if any(each.peer or each.dense for each in comparisons):
        lines += [
            "",
            "Peer's time / ours (above 1: ours is faster), median of the rounds' ratios and "
            "quartiles:",
            "",
            "| batch x tokens | engine | fastest peer | fastest peer of its precision "
            "| itself without skipping zeros |",
            "|---|---|---|---|---|",
            *(_comparison_line(each) for each in comparisons),
        ]
    return "\n".join(lines)


def _ratio_title(result: BenchResult) -> str:
    return f"time / {result.baseline}'s" if result.baseline else "ratio"


def _engine_line(engine: EngineReport) -> str:
    if engine.load_seconds is None:
        return f"| {engine.name} | not run: {engine.reason} | | | | |"
    settings = engine.settings + (f"; stopped {engine.reason}" if engine.reason else "")
    first = "" if engine.first_answer_seconds is None else f"{engine.first_answer_seconds:.2f}"
    peak = "" if engine.peak_bytes is None else f"{engine.peak_bytes / _MIB:.0f}"
    return (
        f"| {engine.name} | {engine.version} | {settings} | {engine.load_seconds:.2f} | {first} "
        f"| {peak} |"
    )


def _comparison_line(found: Comparison) -> str:
    ratios = (found.peer, found.same_precision, found.dense)
    cells = " | ".join("" if ratio is None else _ratio_cell(ratio) for ratio in ratios)
    return f"| {found.shape} | {found.engine} | {cells} |"


def _ratio_cell(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} ({ratio.q1:.2f} - {ratio.q3:.2f}) {ratio.peer}"


def as_csv(result: BenchResult) -> str:
    """One line per measurement, each with its machine, so that files can be combined."""
    machine = result.machine
    where = {
        "threads": result.threads,
        "rounds": result.rounds,
        "cpu": machine["cpu"],
        "instruction_set": machine["instruction_set"],
        "date": machine["date"],
    }
    columns = [column.name for column in fields(Row) if column.name != "samples_ms"]
    columns.append("texts_per_second")
    lines: list[dict[str, object]] = []
    for engine in result.engines:
        about = {key: value for key, value in asdict(engine).items() if key != "name"}
        about["not_run"] = about.pop("reason")
        rows = [
            {column: getattr(row, column) for column in columns}
            for row in result.rows
            if row.engine == engine.name
        ]
        for row in rows or [{"engine": engine.name}]:
            lines.append(
                {"model": result.model, "pattern": result.pattern, **row, **about, **where}
            )
    columns = ["model", "pattern", *columns]
    columns += [*(column for column in lines[0] if column not in columns)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
