"""The table as Markdown: scores, the share of dense kept, and what to know before believing it."""

from __future__ import annotations

import statistics

from sparsebert.evaluation.result import METRIC_TITLES
from sparsebert.evaluation.seed_scores import deviation, mean_and_deviation
from sparsebert.table.layout import DENSE, Column, Table, row_title


def as_markdown(table: Table) -> str:
    """Everything that is known, as two Markdown tables and notes."""
    columns = table.columns()
    lines = [
        _line("", [_heading(column) for column in columns]),
        "|---|" + "---:|" * len(columns),
        *(
            _line(row_title(row), [_scores(table, row, column) for column in columns])
            for row in table.rows()
        ),
        "",
        "Percent on the validation split: mean ± sample standard deviation (number of seeds). "
        f"Training rows: {_training_rows(table)}.",
    ]
    others = table.compared_rows()
    if others:
        lines += [
            "",
            "Share of dense kept, in percent:",
            "",
            _line("", [*(column.title for column in columns), "mean"]),
            "|---|" + "---:|" * (len(columns) + 1),
            *(_line(row_title(row), _shares(table, row)) for row in others),
            "",
            "A task's share is the mean over its metrics of the row's mean score / dense's mean "
            f"score{_about_variants(columns)} ~: the difference to dense is within the seeds' "
            "spread (at most the larger standard deviation of the two).",
        ]
    elif DENSE not in table.rows():
        lines += ["", "There is no row dense, so no share of it can be told."]
    warnings = table.warnings()
    if warnings:
        lines += ["", *(f"- {warning}" for warning in warnings)]
    return "\n".join(lines)


def _line(title: str, cells: list[str]) -> str:
    return f"| {title} | " + " | ".join(cells) + " |"


def _heading(column: Column) -> str:
    names = dict.fromkeys(METRIC_TITLES.get(metric, metric) for _, metric in column.cells)
    return f"{column.title}, {'/'.join(names)}"


def _scores(table: Table, row: str, column: Column) -> str:
    cells, counts = [], set()
    for cell in column.cells:
        result = table.at(row, column, cell)
        if result is None:
            cells.append("-")
            continue
        cells.append(mean_and_deviation(statistics.fmean(result.seeds), deviation(result.seeds)))
        counts.add(len(result.seeds))
    if not counts:
        return ""
    return f"{' / '.join(cells)} ({'/'.join(map(str, sorted(counts)))})"


def _shares(table: Table, row: str) -> list[str]:
    columns = table.columns()
    shares = [table.share(row, column) for column in columns]
    mean = table.mean_share(row)
    return [
        *(
            ""
            if share is None
            else f"{share:.1f}{' ~' if table.within_spread(row, column) else ''}"
            for share, column in zip(shares, columns, strict=True)
        ),
        "" if mean is None else f"{mean[0]:.2f} (of {mean[1]})",
    ]


def _training_rows(table: Table) -> str:
    parts = []
    for column in table.columns():
        counts = {each.train_rows for each in table.results if each.run == column.run}
        told = "/".join(
            "unknown" if count is None else f"{count:,}" for count in sorted(counts, key=str)
        )
        parts.append(f"{column.title} {told}")
    return ", ".join(parts)


def _about_variants(columns: list[Column]) -> str:
    variants = [column.title for column in columns if not column.counts]
    if not variants:
        return "."
    return f"; {', '.join(variants)} is not counted in the mean."
