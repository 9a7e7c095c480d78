"""The formats of a table, including a model card for the hub, and writing them."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from sparsebert.checkpoint.atomic import replaced_file
from sparsebert.checkpoint.card import model_index
from sparsebert.errors import DataError, OutputError, printable, reading
from sparsebert.evaluation.results import about_seeds, hub_results
from sparsebert.table.layout import DENSE, Table, as_markdown, row_title, tables
from sparsebert.table.plot import as_svg
from sparsebert.table.results import merge, read_results
from sparsebert.table.runs import read_runs
from sparsebert.tasks.table import TASKS


def as_json(found: Sequence[Table]) -> str:
    """The results as a results.json: a list with one result per line, valid in any encoding."""
    ordered = (each for table in found for each in table.ordered())
    lines = [json.dumps(each.as_dict()) for each in ordered]
    return "[\n  " + ",\n  ".join(lines) + "\n]"


def as_sections(found: Sequence[Table]) -> str:
    """Each table as Markdown, under the name of its model if there are several."""
    if len(found) == 1:
        return as_markdown(found[0])
    return "\n\n".join(f"## {each.model or 'unknown'}\n\n{as_markdown(each)}" for each in found)


def as_card(table: Table, row: str | None = None) -> str:
    """README.md for the models of ``row``, by default the table's last, with a ``model-index``.

    The ``model-index`` lists only known tasks, because a user's own data has no name on the hub.
    Raises DataError if there is no such row.
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


def as_one_card(found: Sequence[Table], row: str | None = None) -> str:
    """`as_card` for the only table; DataError if there are several."""
    if len(found) > 1:
        names = ", ".join(each.model for each in found)
        raise DataError(f"a card is for one model, not {names}: choose one with --model.")
    return as_card(found[0], row)


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "markdown": as_sections,
    "json": as_json,
    "svg": as_svg,
    "card": as_one_card,
}


def read_tables(
    runs: Sequence[str | Path], *, model: str | None = None, rows: Sequence[str] = ()
) -> tuple[list[Table], list[str]]:
    """A table for each model in ``runs``, with sources combined by `merge`, and notes.

    ``model`` selects one model; ``rows`` selects rows, besides dense, which they are compared with.
    Raises DataError.
    """
    sources = []
    notes: list[str] = []
    for source in map(Path, runs):
        with reading(source, DataError):
            found, missing = (read_results(source), []) if source.is_file() else read_runs(source)
            tables(found)  # refuses duplicates within a source, which merging would hide
        sources.append(found)
        notes += missing
    results, differences = merge(sources)
    if not results:
        raise DataError(f"there are no results in {', '.join(map(str, runs))}.")
    if rows:
        there = dict.fromkeys(each.row for each in results)
        for row in rows:
            if row not in there:
                raise DataError(f"there is no row '{row}': the rows are {', '.join(there)}.")
        results = [each for each in results if each.row in (DENSE, *rows)]
    found_tables = tables(results)
    if model is not None:
        named = [each for each in found_tables if each.model == model]
        if not named:
            names = ", ".join(each.model for each in found_tables)
            raise DataError(f"there are no results for the model '{model}', only for {names}.")
        found_tables = named
    return found_tables, notes + differences


def write(
    *runs: str | Path,
    format: str = "markdown",
    out: Path | None = None,
    row: str | None = None,
    model: str | None = None,
    rows: Sequence[str] = (),
) -> list[str]:
    """Write the table of ``runs`` (folders or results.json files) to ``out`` or standard output.

    ``row`` is the row that a card describes, ``model`` selects one of several models, and ``rows``
    selects rows, besides dense.

    Returns notes on what has no scores yet, and on results that may not be comparable. Raises
    DataError for results that cannot be used, OutputError if ``out`` cannot be written.
    """
    found, notes = read_tables(runs, model=model, rows=rows)
    text = as_one_card(found, row) if format == "card" else FORMATS[format](found)
    if out is None:
        sys.stdout.write(printable(text, "\n") + "\n")
        return notes
    try:
        with replaced_file(out) as unfinished:
            unfinished.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{out} could not be written: {error.strerror}.") from error
    return notes
