"""report.html: what a halving kept, cost and gained, in one self-contained page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsebert.bench import BenchResult
from sparsebert.halving.result import OURS, HalveResult, LayerZeros, Speedup, speedups

REPORT_NAME = "report.html"
_TITLES = {
    OURS: "halved, int8",
    "sparsebert-dense-int8": "dense int8, same engine",
    "torch": "dense fp32, torch",
}
_TILE_SHAPE = "1x128"
_PARTS = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention output",
    "intermediate.dense": "feed-forward in",
    "output.dense": "feed-forward out",
}
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.weight")


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
        speeds=_speeds(result.bench),
        sparsity=_sparsity(result.layers),
    )


def _latencies(bench: BenchResult | None) -> list[dict[str, Any]]:
    """For each shape, the engines' medians, and as lengths of bars their share of the slowest."""
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
                "ours": row.engine == OURS,
                "ms": f"{row.median_ms:,.0f}" if row.median_ms >= 1000 else f"{row.median_ms:.3g}",
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
            "ours": each.name == OURS,
            "mb": (each.peak_bytes or 0) / 1e6,
            "share": 100 * (each.peak_bytes or 0) / most,
        }
        for each in known
    ]


def _speeds(bench: BenchResult | None) -> list[Speedup]:
    """Speed-ups over torch and the fastest other engine, for the tiles at the top of the page."""
    found = [] if bench is None else speedups(bench)
    return [each for each in found if each.shape == _TILE_SHAPE] or found[-1:]


def _sparsity(layers: Sequence[LayerZeros]) -> dict[str, Any]:
    """The zeros of the encoder, in percent, by layer and kind of matrix; and those of all others.

    Matrices with names of their own, as in some families, are listed with the others.
    """
    cells: dict[int, dict[str, float]] = {}
    others = []
    for layer in layers:
        found = _LAYER.fullmatch(layer.name)
        if found and found[2] in _PARTS:
            cells.setdefault(int(found[1]), {})[found[2]] = 100 * layer.zeros
        elif layer.zeros > 0.01:
            others.append(layer)
    return {"columns": _PARTS, "rows": cells, "others": others}
