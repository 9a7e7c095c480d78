"""report.html: what a halving kept, cost and brought, in one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparsebert.bench import BenchResult
from sparsebert.halving.result import HalveResult

REPORT_NAME = "report.html"
_TITLES = {
    "sparsebert-int8": "halved, int8",
    "sparsebert-dense-int8": "dense int8, same engine",
    "torch": "dense fp32, torch",
}


def render_report(result: HalveResult) -> str:
    """The page as text: no script, nothing fetched, light and dark, readable on a phone."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        result=result,
        judgement=result.judgement,
        latencies=_latencies(result.bench),
        memory=_memory(result.bench),
        speed=_speed(result.bench),
        encoder=[layer for layer in result.layers if layer.zeros > 0.01],
    )


def _latencies(bench: BenchResult | None) -> list[dict[str, Any]]:
    """For each shape, the engines' medians with the share of the slowest: lengths of bars."""
    if bench is None:
        return []
    shapes = list(dict.fromkeys(str(row.shape) for row in bench.rows))
    found = []
    for shape in shapes:
        rows = [row for row in bench.rows if str(row.shape) == shape]
        slowest = max(row.median_ms for row in rows)
        bars = [
            {
                "title": _TITLES.get(row.engine, row.engine),
                "ours": row.engine == "sparsebert-int8",
                "ms": row.median_ms,
                "share": 100 * row.median_ms / slowest,
            }
            for row in rows
        ]
        found.append({"shape": shape, "bars": bars})
    return found


def _memory(bench: BenchResult | None) -> list[dict[str, Any]]:
    if bench is None:
        return []
    known = [each for each in bench.engines if each.peak_bytes is not None]
    most = max((each.peak_bytes or 0 for each in known), default=1)
    return [
        {
            "title": _TITLES.get(each.name, each.name),
            "ours": each.name == "sparsebert-int8",
            "mb": (each.peak_bytes or 0) / 1e6,
            "share": 100 * (each.peak_bytes or 0) / most,
        }
        for each in known
    ]


def _speed(bench: BenchResult | None) -> float | None:
    """torch's time by ours at the last shape that both were measured at."""
    if bench is None:
        return None
    by_shape: dict[str, dict[str, float]] = {}
    for row in bench.rows:
        by_shape.setdefault(str(row.shape), {})[row.engine] = row.median_ms
    ratios = [
        each["torch"] / each["sparsebert-int8"]
        for each in by_shape.values()
        if {"torch", "sparsebert-int8"} <= each.keys()
    ]
    return ratios[-1] if ratios else None
