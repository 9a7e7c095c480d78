"""A plot of the share of dense kept: each row's mean on each task, with a dot for each seed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparsebert.errors import DataError, MissingExtraError
from sparsebert.table.layout import DENSE, Column, Table, row_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which is distinguishable with colour blindness, and two more colours.
_COLOURS = (
    *("#8a8f98", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00"),
    *("#56B4E9", "#000000", "#8C6D1F", "#7B4EA3"),
)
_INCHES_A_ROW = 0.17
_DOTS = 14  # area of a seed's dot, in points squared
_INT8 = "-int8"  # ends the names of rows that are other rows packed


def as_svg(tables: Sequence[Table]) -> str:
    """The plot as SVG. DataError unless there is a row dense and another to compare with it."""
    figure = shares_figure(tables)
    from matplotlib import rc_context

    picture = io.StringIO()
    with rc_context({"svg.hashsalt": "sparsebert"}):  # the same results give the same file
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue().rstrip("\n")


def shares_figure(tables: Sequence[Table], *, width: float = 7.0) -> Figure:
    """Tasks from top to bottom; in each, every row's mean as a stroke and its seeds as dots.

    An int8 row has the colour of the row it was packed from, a thinner stroke and hollow dots.
    Dense's own seeds are also drawn: a row whose dots lie among them is as good as dense. The axis
    does not begin at zero but at the lowest scores, as its labels show. Several models are drawn
    one below the other, with a common axis. ``width`` is in inches.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
        from matplotlib.lines import Line2D
    except ImportError as missing:
        raise MissingExtraError("plotting", "plot") from missing

    drawn = [(table, _drawn(table)) for table in tables]
    drawn = [(table, columns) for table, columns in drawn if columns]
    if not drawn:
        raise DataError("there is nothing to plot: no row has a task in common with row dense.")
    rows = list(dict.fromkeys(row for table, _ in drawn for row in _compared(table)))
    styles = _styles(rows)
    heights = [sum(len(_rows_of(table, c)) + 1 for c in columns) for table, columns in drawn]
    figure = Figure(
        figsize=(width, 0.9 + _INCHES_A_ROW * sum(heights) + 0.25 * (len(drawn) - 1)),
        layout=ConstrainedLayoutEngine(),
    )
    panels: Any = figure.subplots(
        len(drawn), sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes, (table, columns) in zip(panels[:, 0], drawn, strict=True):
        _draw_panel(axes, table, columns, styles)
        if len(drawn) > 1:
            axes.set_title(table.model, loc="left", fontsize="medium")
    panels[-1, 0].set_xlabel(
        "score in percent of the dense model's, same seeds (stroke: mean, dot: one seed)"
    )
    handles = [
        Line2D(
            [],
            [],
            color=style.colour,
            linewidth=style.stroke,
            marker="o",
            markersize=4,
            markerfacecolor="white" if style.int8 else style.colour,
            label=_legend(tables, row),
        )
        for row, style in styles.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=len(rows) if len(rows) <= 3 else 2,  # more would not fit the width
        frameon=False,
    )
    return figure


@dataclass(frozen=True)
class _Style:
    """How a row is drawn."""

    colour: str
    int8: bool

    @property
    def stroke(self) -> float:
        """The width of its stroke, in points."""
        return 1.2 if self.int8 else 2.5

    @property
    def dots(self) -> dict[str, Any]:
        """The style of its seeds' dots, as arguments of matplotlib's scatter."""
        if self.int8:
            hollow = {"facecolors": "none", "edgecolors": self.colour}
            return {**hollow, "alpha": 0.8, "linewidths": 0.8}
        return {"color": self.colour, "alpha": 0.6, "linewidths": 0}


def _styles(rows: Sequence[str]) -> dict[str, _Style]:
    """The style of each row; an int8 row has the colour of the row it was packed from."""
    patterns = list(dict.fromkeys(row.removesuffix(_INT8) for row in rows))
    return {
        row: _Style(
            _COLOURS[patterns.index(row.removesuffix(_INT8)) % len(_COLOURS)], row.endswith(_INT8)
        )
        for row in rows
    }


def _compared(table: Table) -> list[str]:
    """Dense and the rows that can be compared with it."""
    others = table.compared_rows()
    return [row for row in table.rows() if row == DENSE or row in others]


def _rows_of(table: Table, column: Column) -> list[str]:
    """The compared rows that have a score in a column."""
    return [row for row in _compared(table) if table.share(row, column) is not None]


def _drawn(table: Table) -> list[Column]:
    rows = [row for row in _compared(table) if row != DENSE]
    return [
        column
        for column in table.columns()
        if any(table.share(row, column) is not None for row in rows)
    ]


def _draw_panel(
    axes: Any, table: Table, columns: Sequence[Column], styles: Mapping[str, _Style]
) -> None:
    middles, y = [], 0
    for index, column in enumerate(columns):
        rows = _rows_of(table, column)
        for offset, row in enumerate(rows):
            _draw(axes, table, row, column, y + offset, styles[row])
        if index % 2:
            axes.axhspan(y - 1, y + len(rows), color="black", alpha=0.04, lw=0)
        middles.append(y + (len(rows) - 1) / 2)
        y += len(rows) + 1
    axes.axvline(100, color=_COLOURS[0], linewidth=1, zorder=0)
    axes.set_yticks(middles, [column.title for column in columns])
    axes.set_ylim(y - 1, -1)
    axes.tick_params(left=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.margins(x=0.03)


def _draw(axes: Any, table: Table, row: str, column: Column, y: float, style: _Style) -> None:
    mean = table.share(row, column)
    if mean is None:
        return
    seeds = table.seed_shares(row, column)
    axes.vlines(mean, y - 0.42, y + 0.42, color=style.colour, linewidth=style.stroke, zorder=2)
    axes.scatter(seeds, [y] * len(seeds), s=_DOTS, zorder=3, **style.dots)


def _legend(tables: Sequence[Table], row: str) -> str:
    """The row's title; if only one model is drawn, with its mean and number of tasks."""
    mean = tables[0].mean_share(row) if len(tables) == 1 else None
    if row == DENSE or mean is None:
        return row_title(row)
    return f"{row_title(row)} (mean {mean[0]:.1f}, {mean[1]} task{'s' * (mean[1] != 1)})"
