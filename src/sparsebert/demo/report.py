"""The demo's report: one HTML file that needs nothing beside it, with its charts as SVG elements.

matplotlib draws with the colours of `_THEME`; in the SVG they become CSS variables, so that the
page's light and dark modes apply. Letters stay letters, in the page's font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.bench import BenchResult
from sparsebert.bench.plot import OURS, PEERS, latency_figure
from sparsebert.bench.result import Row
from sparsebert.demo.result import DemoResult, LayerZeros, Variant
from sparsebert.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TILE_SHAPE = "1x128"
_INK, _TRACK = "#1c2126", "#e4e7ea"
_THEME = {_INK: "--ink", _TRACK: "--track", OURS: "--ours", PEERS: "--theirs"}
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": PEERS,
    "xtick.color": _INK,
    "ytick.color": _INK,
}
_WIDTH = 5.0  # inches: 360 units in the SVG, so that its letters are 11 pixels high on a phone

_PARTS = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attn.\noutput",
    "intermediate.dense": "feed-\nfwd in",
    "output.dense": "feed-\nfwd out",
}


def render_report(result: DemoResult) -> str:
    """The report as HTML text. Every number in it is in ``result``."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as missing:
        raise MissingExtraError("the demo's report", "demo") from missing

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    template = environment.from_string(source)
    return template.render(
        result=result,
        charts=draw_charts(result),
        dense=result.variants[0],
        sparse=result.variants[1],
        packed=result.variants[2:],
        zeros=_pruned_zeros(result),
        peers=[row for row in result.bench.rows if row.engine != result.bench.baseline],
        headline=_headline_peer(result),
    )


def _pruned_zeros(result: DemoResult) -> float:
    """Share of zeros over all the encoder's linear weights."""
    encoder = [layer for layer in result.layers if layer.name.startswith("encoder.")]
    weights = sum(layer.rows * layer.columns for layer in encoder)
    zeros = sum(layer.zeros * layer.rows * layer.columns for layer in encoder)
    return zeros / weights if weights else 0.0


def _headline_peer(result: DemoResult) -> Row | None:
    """torch's row at the shape the front of the report names (or the first there is)."""
    rows = [row for row in result.bench.rows if row.engine == "torch" and row.ratio is not None]
    named = [row for row in rows if str(row.shape) == _TILE_SHAPE]
    return next(iter(named or rows), None)


def draw_charts(result: DemoResult) -> dict[str, str]:
    """SVG texts by name: accuracy, size, latency, sparsity."""
    try:
        import matplotlib as mpl
    except ImportError as missing:
        raise MissingExtraError("the demo's report", "demo") from missing

    with mpl.rc_context(_STYLE):
        figures = {
            "accuracy": _scores(result.variants),
            "size": _sizes(result.variants, result.bench),
            "latency": latency_figure(result.bench, width=_WIDTH),
            "sparsity": _sparsity(result.layers),
        }
        return {name: _inline(name, figure) for name, figure in figures.items()}


def _scores(variants: Sequence[Variant]) -> Figure:
    names = [f"{variant.name}\n({variant.engine})" for variant in variants]
    return _bars(
        [("", names, [variant.score for variant in variants], _colours(variants), "{:.1f}")]
    )


def _sizes(variants: Sequence[Variant], bench: BenchResult) -> Figure:
    stored = [variant for variant in variants if not (variant.sparse and variant.engine == "torch")]
    measured = [engine for engine in bench.engines if engine.peak_bytes is not None]
    return _bars(
        [
            (
                "weights on disk, MB",
                [variant.name for variant in stored],
                [variant.weights_bytes / 1e6 for variant in stored],
                _colours(stored),
                "{:.1f}",
            ),
            (
                "peak memory of the whole process, MB",
                [engine.name for engine in measured],
                [(engine.peak_bytes or 0) / 1e6 for engine in measured],
                [OURS if engine.name.startswith("sparsebert") else PEERS for engine in measured],
                "{:.0f}",
            ),
        ]
    )


def _colours(variants: Sequence[Variant]) -> list[str]:
    return [OURS if variant.sparse else PEERS for variant in variants]


_Panel = tuple[str, list[str], list[float], list[str], str]


def _bars(panels: Sequence[_Panel]) -> Figure:
    """Panels of horizontal bars from zero: title, names, lengths, colours, number format."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    counts = [max(len(names), 1) for _, names, *_ in panels]
    lines = max(name.count("\n") + 1 for _, names, *_ in panels for name in names)
    height = (0.3 + 0.12 * (lines - 1)) * sum(counts) + 0.45 * len(panels)
    figure = Figure(figsize=(_WIDTH, height), layout=ConstrainedLayoutEngine(hspace=0.12))
    grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": counts})
    for axes, (title, names, lengths, colours, form) in zip(grid[:, 0], panels, strict=True):
        bars = axes.barh(names, lengths, color=colours, height=0.7)
        axes.bar_label(bars, labels=[form.format(length) for length in lengths], padding=6)
        axes.set_xlim(0, max([*lengths, 1e-9]) * 1.15)
        axes.set_title(title, loc="left", fontsize="medium")
        axes.invert_yaxis()
        _bare(axes)
    return figure


def _sparsity(layers: Sequence[LayerZeros]) -> Figure:
    """A row a layer of the encoder, a column a matrix; in each cell its share of zeros."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    cells = [
        (int(found[1]), list(_PARTS).index(found[2]), layer.zeros)
        for layer in layers
        if (found := re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)\.weight", layer.name))
        and found[2] in _PARTS
    ]
    depth = max((row for row, _, _ in cells), default=0) + 1
    figure = Figure(figsize=(_WIDTH, 0.42 * depth + 0.7), layout="constrained")
    axes = figure.subplots()
    for row, column, zeros in cells:
        left, top, width = column + 0.06, row + 0.58, 0.88
        axes.add_patch(Rectangle((left, top), width, 0.24, color=_TRACK, linewidth=0))
        axes.add_patch(Rectangle((left, top), width * zeros, 0.24, color=OURS, linewidth=0))
        axes.text(column + 0.5, row + 0.5, f"{zeros:.1%}", ha="center", va="bottom", fontsize=9.5)
    axes.set_xlim(0, len(_PARTS))
    axes.set_ylim(depth, 0)
    axes.set_xticks([column + 0.5 for column in range(len(_PARTS))], list(_PARTS.values()))
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", labelsize=9.5)
    axes.set_yticks([row + 0.5 for row in range(depth)], [f"layer {row}" for row in range(depth)])
    _bare(axes, keep_x=True)
    axes.spines["left"].set_visible(False)
    return figure


def _bare(axes: Any, *, keep_x: bool = False) -> None:
    axes.tick_params(length=0)
    if not keep_x:
        axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _inline(name: str, figure: Figure) -> str:
    """The figure as an <svg> element, with ids that are unique in the page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # matplotlib numbers its elements alike in every figure; in one page each id may occur once.
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    for colour, variable in _THEME.items():
        svg = svg.replace(colour, f"var({variable})")
    # Its size is the page's business; the viewBox keeps its proportions.
    return re.sub(r'^<svg([^>]*?) (?:height|width)="[^"]*"', r"<svg\1", svg, count=1).strip()
