"""A model card for the hub: the table for people, one row of it for programs (``model-index``)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial

from sparsebert.checkpoint.card import model_index
from sparsebert.errors import DataError
from sparsebert.evaluation.results import about_seeds, hub_results
from sparsebert.table.layout import Table, as_markdown, row_title
from sparsebert.tasks.table import TASKS


def as_card(table: Table, row: str | None = None) -> str:
    """README.md of the models of ``row``, by default the table's last.

    Only tasks of the table are in the ``model-index``: a user's own data has no name on the hub.
    Raises DataError for a row that is not there.
    """
    rows = table.rows()
    if row is not None and row not in rows:
        raise DataError(f"there is no row '{row}': the rows are {', '.join(rows)}.")
    chosen = row or rows[-1]
    evaluations = []
    for column in table.columns():
        if column.counts and column.task in TASKS:
            for cell in column.cells:
                result = table.at(chosen, column, cell)
                if result is not None:
                    split, metric = cell
                    mean = {split: {metric: statistics.fmean(result.seeds)}}
                    evaluations += hub_results(
                        TASKS[column.task], mean, partial(_remark, result.seeds)
                    )
    front = ["library_name: transformers", "tags:", "- sparsebert"]
    if evaluations:
        front.append(model_index(row_title(chosen), evaluations))
    commands = {each.command: None for each in table.ordered() if each.row == chosen}
    lines = [
        f"# {row_title(chosen)}",
        "",
        "Made and scored by sparsebert.",
        "",
        "## Results",
        "",
        as_markdown(table),
        "",
        "## How it was made",
        "",
        "```sh",
        *(command for command in commands if command),
        "```",
    ]
    return "---\n" + "\n".join(front) + "\n---\n\n" + "\n".join(lines)


def _remark(seeds: Sequence[float], split: str, metric: str) -> str:
    return about_seeds(seeds)
