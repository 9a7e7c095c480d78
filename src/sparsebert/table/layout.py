"""The table: results in rows and columns, their means and shares, and the table as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sparsebert.errors import DataError
from sparsebert.evaluation.results import (
    METRIC_TITLES,
    deviation,
    mean_and_deviation,
    within_spread,
)
from sparsebert.extras import data_frame
from sparsebert.table.results import Result
from sparsebert.tasks.table import TASKS

if TYPE_CHECKING:
    import pandas as pd

DENSE = "dense"
# Rows in the order of the table; others follow in alphabetical order, under their own names.
ROW_TITLES = {
    DENSE: "dense",
    "oneshot": "1:2",
    "best": "1:2 + distillation",
    "best-int8": "1:2 int8",
    "shared64": "1:2 shared by 64 rows + distillation",
    "shared64-int8": "1:2 shared by 64 rows, int8",
    "shared": "1:2 shared by 128 rows + distillation",
    "shared-int8": "1:2 shared by 128 rows, int8",
    "2of4": "2:4 + distillation",
    "2of4-int8": "2:4 int8",
    "1of4": "1:4 + distillation",
    "1of4-int8": "1:4 int8",
}
_ORDER = list(TASKS)


@dataclass(frozen=True)
class Column:
    """One run: a task, and the splits and metrics it was scored on, in the task's order."""

    run: str
    task: str
    cells: tuple[tuple[str, str], ...]

    @property
    def title(self) -> str:
        """``STS-B``; ``SST-2 (full)`` for a run ``sst2-full``; the run's name for own tasks."""
        if self.task not in TASKS:
            return self.run
        title = TASKS[self.task].title
        if self.run == self.task:
            return title
        return f"{title} ({self.run.removeprefix(self.task).strip('-_') or self.run})"

    @property
    def counts(self) -> bool:
        """Whether it counts towards the mean over the tasks, as variants of a task do not."""
        return self.run == self.task or self.task not in TASKS


@dataclass
class Table:
    """The results of one model in all rows and columns.

    Any cell may be missing. Raises DataError if a result appears twice, or if there are several
    models.
    """

    results: Sequence[Result]
    _at: dict[tuple[str, ...], Result] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._at = {}
        for each in self.results:
            if each.key in self._at:
                raise DataError(
                    f"{each.row}, {each.run}, {each.split} {each.metric} appears twice: give one "
                    "of them a different 'run'."
                )
            self._at[each.key] = each
        models = dict.fromkeys(each.model for each in self.results)
        if len(models) > 1:
            raise DataError(f"a table can only hold one model, not {' and '.join(models)}.")
        self.model = next(iter(models), "")

    def rows(self) -> list[str]:
        """Rows that have a result, the known ones first."""
        there = {each.row for each in self.results}
        return [row for row in ROW_TITLES if row in there] + sorted(there - set(ROW_TITLES))

    def compared_rows(self) -> list[str]:
        """The rows other than dense that have a task in common with it."""
        columns = self.columns()
        return [
            row
            for row in self.rows()
            if row != DENSE and any(self.share(row, each) is not None for each in columns)
        ]

    def columns(self) -> list[Column]:
        """Known tasks in their fixed order, each followed by its variants; the user's own last."""
        cells: dict[tuple[str, str], dict[tuple[str, str], None]] = {}
        for each in self.results:
            cells.setdefault((each.task, each.run), {})[each.split, each.metric] = None
        columns = [
            Column(run, task, tuple(sorted(found, key=lambda cell: _cell_order(task, cell))))
            for (task, run), found in cells.items()
        ]
        return sorted(
            columns,
            key=lambda column: (
                _ORDER.index(column.task) if column.task in _ORDER else len(_ORDER),
                not column.counts,
                column.run,
            ),
        )

    def ordered(self) -> list[Result]:
        """The results in the order of the table: by row, task, split and metric."""
        return [
            found
            for row in self.rows()
            for column in self.columns()
            for cell in column.cells
            if (found := self.at(row, column, cell))
        ]

    def to_pandas(self) -> pd.DataFrame:
        """One line for each row, task, split, metric and seed; needs [notebook]."""
        return data_frame(
            {
                "model": each.model,
                "row": each.row,
                "task": each.task,
                "run": each.run,
                "split": each.split,
                "metric": each.metric,
                "seed": seed,
                "score": score,
                "train_rows": each.train_rows,
            }
            for each in self.ordered()
            for seed, score in zip(each.seed_numbers, each.seeds, strict=True)
        )

    def _repr_markdown_(self) -> str:
        return as_markdown(self)

    def at(self, row: str, column: Column, cell: tuple[str, str]) -> Result | None:
        """The result of a row on one split and metric of a column."""
        return self._at.get((self.model, row, column.run, *cell))

    def share(self, row: str, column: Column) -> float | None:
        """How much of the dense model's score a row keeps on a task, in percent.

        This is the mean of `seed_shares`: for each of the task's metrics and splits, the mean over
        the row's seeds / the mean over dense's same seeds, averaged with equal weights, as GLUE
        averages a task's metrics (Wang et al. 2018). None if either row lacks a metric, or if dense
        scores 0 or less.
        """
        shares = self.seed_shares(row, column)
        return statistics.fmean(shares) if shares else None

    def seed_shares(self, row: str, column: Column) -> list[float]:
        """Each seed's score in percent of dense's mean over the row's seeds; see `share`."""
        over = []
        for cell in column.cells:
            pair = self._beside_dense(row, column, cell)
            if pair is None or statistics.fmean(pair[1].seeds) <= 0:
                return []
            over.append([100 * score / statistics.fmean(pair[1].seeds) for score in pair[0].seeds])
        return [statistics.fmean(scores) for scores in zip(*over, strict=False)]

    def _beside_dense(
        self, row: str, column: Column, cell: tuple[str, str]
    ) -> tuple[Result, Result] | None:
        """A row's result, and dense's for the same seeds, or for all its seeds if it lacks some."""
        ours, dense = self.at(row, column, cell), self.at(DENSE, column, cell)
        if ours is None or dense is None:
            return None
        return ours, dense.of_seeds(ours.seed_numbers) or dense

    def mean_share(self, row: str) -> tuple[float, int] | None:
        """The mean of `share` over the tasks that have one, and their number, without variants."""
        found = [self.share(row, column) for column in self.columns() if column.counts]
        shares = [share for share in found if share is not None]
        return (statistics.fmean(shares), len(shares)) if shares else None

    def warnings(self) -> list[str]:
        """What makes rows less comparable: different seeds or numbers of training rows."""
        warnings: list[str] = []
        for column in self.columns():
            rows: dict[str, list[str]] = {}  # by warning
            for row in self.rows():
                if row != DENSE:
                    for warning in self._row_warnings(row, column):
                        rows.setdefault(warning, []).append(row_title(row))
            warnings += [f"{column.title}, {', '.join(of)}: {what}" for what, of in rows.items()]
        return warnings

    def _row_warnings(self, row: str, column: Column) -> list[str]:
        pairs = [pair for cell in column.cells if (pair := self._beside_dense(row, column, cell))]
        if not pairs:
            return []
        warnings: list[str] = []
        ours, dense = pairs[0]
        if ours.seed_numbers != dense.seed_numbers:
            warnings.append(f"seeds {ours.numbers()}, but dense has {dense.numbers()}.")
        if ours.train_rows != dense.train_rows:
            warnings.append(
                f"trained on {_count(ours.train_rows)} rows, but dense on "
                f"{_count(dense.train_rows)}: not comparable."
            )
        return warnings

    def within_spread(self, row: str, column: Column) -> bool:
        """Whether a row differs from dense by no more than the seeds differ, on all metrics.

        See `sparsebert.evaluation.results.within_spread`.
        """
        for cell in column.cells:
            pair, dense = self._beside_dense(row, column, cell), self.at(DENSE, column, cell)
            if pair is None or dense is None:
                return False
            difference = statistics.fmean(pair[0].seeds) - statistics.fmean(pair[1].seeds)
            if not within_spread(difference, pair[0].seeds, dense.seeds):
                return False
        return True


def tables(results: Sequence[Result]) -> list[Table]:
    """One table for each model, in the order in which they first appear."""
    models = dict.fromkeys(each.model for each in results)
    return [Table([each for each in results if each.model == model]) for model in models]


def row_title(row: str) -> str:
    """What a row is called in the table."""
    return ROW_TITLES.get(row, row)


def _cell_order(task: str, cell: tuple[str, str]) -> tuple[int, int]:
    """Sort key of a split and metric: the task's own order, unknown ones last."""
    known = TASKS.get(task)
    splits, metrics = (known.validation_splits, known.metrics) if known else ((), ())
    split, metric = cell
    return (
        splits.index(split) if split in splits else len(splits),
        metrics.index(metric) if metric in metrics else len(metrics),
    )


def _count(rows: int | None) -> str:
    return "an unknown number of" if rows is None else f"{rows:,}"


def as_markdown(table: Table) -> str:
    """All results, as two Markdown tables and notes."""
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
            f"score over the same seeds{_about_variants(columns)} ~: the difference to dense is "
            "within the seeds' spread (at most the larger standard deviation of the two, all seeds "
            "of each counted).",
        ]
    elif DENSE not in table.rows():
        lines += ["", "There is no row dense, so shares cannot be computed."]
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
        counted = "/".join(
            "unknown" if count is None else f"{count:,}" for count in sorted(counts, key=str)
        )
        parts.append(f"{column.title} {counted}")
    return ", ".join(parts)


def _about_variants(columns: list[Column]) -> str:
    variants = [column.title for column in columns if not column.counts]
    if not variants:
        return "."
    return f"; {', '.join(variants)} is not counted in the mean."
