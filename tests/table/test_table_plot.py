"""The picture of the table: a dot for each seed, a colour for each pattern."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from sparsebert.errors import DataError
from sparsebert.table import Table
from table_runs import result, table_of


class TestPlot:
    def test_a_dot_for_each_seed(self, runs: Path) -> None:
        pytest.importorskip("matplotlib")
        from sparsebert.table.plot import as_svg, shares_figure

        figure = shares_figure([table_of(runs)])
        (axes,) = figure.axes
        assert [label.get_text() for label in axes.get_yticklabels()] == ["STS-B", "RTE"]
        dots = sorted(
            x for each in axes.collections for x, _ in each.get_offsets() if _is_dots(each)
        )
        best = [100, (100 * 79 / 80 + 100) / 2]
        packed = [(100 * 79 / 80 + 98) / 2, (100 * 78 / 80 + 98) / 2]
        dense = [(100 * 79 / 80 + 100) / 2, (100 * 81 / 80 + 100) / 2]
        assert dots == pytest.approx(sorted([*best, *packed, *dense, 85, 85, 100, 95]))
        svg = as_svg([table_of(runs)])
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert svg == as_svg([table_of(runs)])

    def test_the_legend_of_all_rows_is_within_the_picture(self) -> None:
        pytest.importorskip("matplotlib")
        from sparsebert.table.plot import shares_figure

        rows = ("dense", "oneshot", "best", "best-int8")
        figure = shares_figure([Table([result(row=row) for row in rows])])
        figure.canvas.draw()
        (legend,) = figure.legends
        (left, _), (right, _) = legend.get_window_extent().get_points()
        assert len(legend.get_texts()) == 4
        assert 0 <= left < right <= figure.bbox.width

    def test_each_pattern_has_a_colour_that_its_int8_row_shares(self) -> None:
        pytest.importorskip("matplotlib")
        from sparsebert.table.plot import shares_figure

        patterns = ["best", "shared64", "shared", "2of4", "1of4"]
        rows = ["dense", "oneshot", *(f"{row}{end}" for row in patterns for end in ("", "-int8"))]
        (legend,) = shares_figure([Table([result(row=row) for row in rows])]).legends
        entries = dict(zip(rows, legend.legend_handles, strict=True))
        colours = {row: entry.get_color() for row, entry in entries.items()}
        assert len(set(colours.values())) == 2 + len(patterns)
        for row in patterns:
            assert colours[row] == colours[f"{row}-int8"]
            assert entries[f"{row}-int8"].get_markerfacecolor() == "white"

    def test_ones_own_task(self) -> None:
        pytest.importorskip("matplotlib")
        from sparsebert.table.plot import shares_figure

        own = [result(task="custom", run="reviews", row=row) for row in ("dense", "best")]
        (axes,) = shares_figure([Table(own)]).axes
        assert [label.get_text() for label in axes.get_yticklabels()] == ["reviews"]

    def test_nothing_to_plot(self) -> None:
        pytest.importorskip("matplotlib")
        from sparsebert.table.plot import as_svg

        with pytest.raises(DataError, match="nothing to plot"):
            as_svg([Table([result(), result(row="best", task="mrpc")])])


def _is_dots(drawn: Any) -> bool:
    from matplotlib.collections import PathCollection

    return isinstance(drawn, PathCollection)
