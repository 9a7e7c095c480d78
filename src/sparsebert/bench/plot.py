"""A plot of a measurement: for each shape, a bar per engine, with its quartiles and ratio."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.bench.result import OUR, OUR_DENSE, BenchResult, Row
from sparsebert.bench.workloads import Shape, Texts
from sparsebert.errors import MissingExtraError, OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OURS = "#2a6fdb"
OURS_DENSE = "#9dbdf0"
PEERS = "#9aa3ad"


def latency_figure(result: BenchResult, *, width: float = 6.4) -> Figure:
    """One group of bars per shape, each with its own scale; ``width`` is in inches."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as missing:
        raise MissingExtraError("plotting", "bench") from missing

    groups: dict[Shape | Texts, list[Row]] = {}
    for row in result.rows:
        groups.setdefault(row.shape, []).append(row)
    heights = [len(rows) for rows in groups.values()] or [1]
    figure = Figure(
        figsize=(width, 0.6 * len(heights) + 0.3 * sum(heights)),
        layout=ConstrainedLayoutEngine(hspace=0.12),
    )
    grid = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, (shape, rows) in zip(grid[:, 0], groups.items(), strict=False):
        _draw_shape(axes, shape, rows)
    return figure


def _draw_shape(axes: Any, shape: Shape | Texts, rows: list[Row]) -> None:
    ink = axes.title.get_color()
    names = [row.engine for row in rows]
    medians = [row.median_ms for row in rows]
    quartiles = [
        [row.median_ms - row.q1_ms for row in rows],
        [row.q3_ms - row.median_ms for row in rows],
    ]
    axes.barh(
        names,
        medians,
        xerr=quartiles,
        color=[_colour(name) for name in names],
        height=0.7,
        error_kw={"linewidth": 1, "ecolor": ink},
    )
    longest = max(row.q3_ms for row in rows)
    for position, row in enumerate(rows):
        ratio = "" if row.ratio in (None, 1) else f"  ({row.ratio:.2f}x)"
        axes.annotate(
            f"{_three_digits(row.median_ms)} ms{ratio}",
            (row.q3_ms, position),
            (6, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_xlim(0, longest * 1.4)
    axes.invert_yaxis()
    title = f"{shape}  (batch x tokens)" if isinstance(shape, Shape) else str(shape)
    axes.set_title(title, loc="left", fontsize="medium")
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _colour(engine: str) -> str:
    if engine.startswith(OUR_DENSE):
        return OURS_DENSE
    return OURS if engine.startswith(OUR) else PEERS


def _three_digits(milliseconds: float) -> str:
    if milliseconds >= 100:
        return f"{milliseconds:,.0f}"
    return f"{milliseconds:#.3g}"


def save_plot(result: BenchResult, path: Path) -> None:
    """Write the plot as SVG; OutputError if it cannot be written."""
    figure = latency_figure(result)
    try:
        figure.savefig(path, format="svg")
    except OSError as error:
        raise OutputError(f"the plot could not be written to {path}: {error.strerror}.") from error
