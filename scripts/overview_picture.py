"""docs/overview.svg, the picture in the README: accuracy kept, size, latency beside peers.

    python scripts/overview_picture.py        (needs the [plot] extra)

Every number is read from docs/results.json and docs/performance.md, which give the commands too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sparsebert.table.layout import tables
from sparsebert.table.results import read_results

DOCS = Path(__file__).resolve().parents[1] / "docs"
ROW = "best-int8"
SHAPE = "8x128"
ENGINES = {
    "sparsebert-int8": "sparsebert int8",
    "openvino-int8": "OpenVINO int8",
    "onnxruntime-int8": "ONNX Runtime int8",
    "ctranslate2-int8": "CTranslate2 int8",
    "torch": "torch fp32",
}
OURS, THEIRS, INK = "#2a6fdb", "#b3bac2", "#24292f"


def kept() -> dict[str, float]:
    """By task, the score of the halved int8 model in percent of the dense one's."""
    (table,) = [
        each for each in tables(read_results(DOCS / "results.json")) if "MiniLM" in each.model
    ]
    shares = {each.title: table.share(ROW, each) for each in table.columns() if each.counts}
    return {title: share for title, share in shares.items() if share is not None}


def sizes(page: str) -> dict[str, float]:
    """Megabytes of weights."""
    found = re.search(r"MiniLM (\d+\.\d) of (\d+\.\d) MB", page)
    assert found is not None
    return {"1:2 int8": float(found[1]), "dense fp32": float(found[2])}


def latencies(page: str) -> dict[str, float]:
    """Milliseconds per batch by engine, from the first table for MiniLM."""
    section = page[page.index("### MiniLM on Zen 4") :]
    table = re.search(r"(?:^\|.*\n)+", section, re.M)
    assert table is not None
    heading, _, *lines = (
        [cell.strip() for cell in line.split("|")[1:]] for line in table[0].splitlines()
    )
    by_engine = {line[0]: line[heading.index(SHAPE)] for line in lines}
    return {title: float(by_engine[engine]) for engine, title in ENGINES.items()}


def draw() -> Any:
    from matplotlib.figure import Figure

    page = (DOCS / "performance.md").read_text(encoding="utf-8")
    figure = Figure(figsize=(9.2, 2.75), layout="constrained")
    left, middle, right = figure.subplots(1, 3, gridspec_kw={"width_ratios": [1.15, 0.8, 1.15]})

    shares = kept()
    mean = sum(shares.values()) / len(shares)
    titles = [*shares, "mean"]
    values = [*shares.values(), mean]
    left.axvline(100, color=THEIRS, linewidth=1.2, zorder=0)
    left.scatter(values, titles, s=34, color=[*[OURS] * len(shares), INK], zorder=2)
    for title, value in zip(titles, values, strict=True):
        left.annotate(
            f"{value:.1f}", (value, title), (7, 0), textcoords="offset points", va="center", size=8
        )
    left.set_xlim(97.5, 101.8)
    left.invert_yaxis()
    left.set_title("accuracy kept, % of dense", loc="left")

    _bars(middle, sizes(page), "{:.1f}", "weights, MB")
    _bars(right, latencies(page), "{:.0f}", "8 texts of 128 tokens, ms")
    left.tick_params(length=0, labelsize=9)
    left.set_xticks([98, 99, 100, 101])
    left.spines[["top", "right", "left", "bottom"]].set_visible(False)
    return figure


def _bars(axes: Any, lengths: dict[str, float], form: str, title: str) -> None:
    colours = [OURS if place == 0 else THEIRS for place in range(len(lengths))]
    bars = axes.barh(list(lengths), list(lengths.values()), color=colours, height=0.62)
    axes.bar_label(bars, [form.format(value) for value in lengths.values()], padding=4, size=8)
    axes.set_xlim(0, max(lengths.values()) * 1.18)
    axes.set_xticks([])
    axes.set_ylim(4.5, -0.5)  # room for five, the longest list, so that all bars are equally thick
    axes.set_title(title, loc="left")
    axes.tick_params(length=0, labelsize=9)
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)


def main() -> None:
    from matplotlib import rc_context

    style = {
        "svg.hashsalt": "sparsebert",
        "font.size": 9.5,
        "axes.titlesize": 10,
        "text.color": INK,
    }
    with rc_context(style):
        draw().savefig(DOCS / "overview.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
