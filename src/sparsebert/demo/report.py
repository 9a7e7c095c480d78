"""The demo's report: one HTML file that needs nothing beside it."""

from __future__ import annotations

from pathlib import Path

from sparsebert.bench.result import Row
from sparsebert.demo.charts import draw_charts
from sparsebert.demo.result import DemoResult
from sparsebert.errors import MissingExtraError

_TILE_SHAPE = "1x128"


def render_report(result: DemoResult) -> str:
    """The report as HTML text. Every number in it stands in ``result``."""
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
