"""A measurement as people and programs read it: Markdown and CSV (JSON is the result itself)."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, fields

from sparsebert.bench.comparison import Comparison, Ratio
from sparsebert.bench.result import BenchResult, EngineReport, Row

_MIB = 1024 * 1024


def as_markdown(result: BenchResult) -> str:
    """What was measured on what; the engines; their times; ours against the fastest peers."""
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
    """One line a measurement, each with its machine, so that files can be put together."""
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
