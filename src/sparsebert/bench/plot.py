"""A measurement as a picture: for each shape, a bar an engine, with its quartiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.bench.result import BenchResult, Row
from sparsebert.errors import MissingExtraError, OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OURS = "#2a6fdb"
THEIRS = "#9aa3ad"


def latency_figure(result: BenchResult, *, width: float = 6.4) -> Figure:
    """One row of bars a shape, each to its own scale; ``width`` in inches."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as missing:
        raise MissingExtraError("plotting", "bench") from missing

    groups: dict[str, list[Row]] = {}
    for row in result.rows:
        groups.setdefault(str(row.shape), []).append(row)
    heights = [len(rows) for rows in groups.values()] or [1]
    figure = Figure(
        figsize=(width, 0.6 * len(heights) + 0.3 * sum(heights)),
        layout=ConstrainedLayoutEngine(hspace=0.12),
    )
    grid = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, (shape, rows) in zip(grid[:, 0], groups.items(), strict=False):
        _draw_shape(axes, shape, rows)
    return figure


def _draw_shape(axes: Any, shape: str, rows: list[Row]) -> None:
    ink = axes.title.get_color()
    names = [row.engine for row in rows]
    medians = [row.median_ms for row in rows]
    spread = [
        [row.median_ms - row.q1_ms for row in rows],
        [row.q3_ms - row.median_ms for row in rows],
    ]
    colours = [OURS if name.startswith("sparsebert") else THEIRS for name in names]
    axes.barh(
        names,
        medians,
        xerr=spread,
        color=colours,
        height=0.7,
        error_kw={"linewidth": 1, "ecolor": ink},
    )
    longest = max(row.q3_ms for row in rows)
    for position, row in enumerate(rows):
        axes.annotate(
            f"{row.median_ms:.3g} ms",
            (row.q3_ms, position),
            (6, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_xlim(0, longest * 1.3)
    axes.invert_yaxis()
    axes.set_title(f"{shape}  (batch x tokens)", loc="left", fontsize="medium")
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def save_plot(result: BenchResult, path: Path) -> None:
    """Write the picture as SVG; OutputError if it cannot be written."""
    figure = latency_figure(result)
    try:
        figure.savefig(path, format="svg")
    except OSError as error:
        raise OutputError(f"the plot could not be written to {path}: {error.strerror}.") from error
