"""The forms a table can take, and writing one of them whole."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sparsebert.checkpoint.atomic import replaced_file
from sparsebert.errors import OutputError
from sparsebert.table.card import as_card
from sparsebert.table.layout import Table, as_markdown
from sparsebert.table.plot import as_svg
from sparsebert.table.results import merge, read_results
from sparsebert.table.runs import read_runs


def as_json(table: Table) -> str:
    """The results as a results.json: a list, one result a line."""
    lines = [json.dumps(each.as_dict(), ensure_ascii=False) for each in table.ordered()]
    return "[\n  " + ",\n  ".join(lines) + "\n]"


FORMATS: dict[str, Callable[[Table], str]] = {
    "markdown": as_markdown,
    "json": as_json,
    "svg": as_svg,
    "card": as_card,
}


def read_table(runs: Sequence[str | Path]) -> tuple[Table, list[str]]:
    """One table of all ``runs``, as `merge` puts them together, and notes. Raises DataError."""
    places = []
    notes: list[str] = []
    for place in map(Path, runs):
        found, missing = (read_results(place), []) if place.is_file() else read_runs(place)
        Table(found)  # refuses what appears twice within a place, which merging would hide
        places.append(found)
        notes += missing
    results, differences = merge(places)
    return Table(results), notes + differences


def write(
    *runs: str | Path, format: str = "markdown", out: Path | None = None, row: str | None = None
) -> list[str]:
    """Write the table of ``runs`` (folders or results.json files) to ``out`` or standard output.

    Returns notes on what has no scores yet or does not quite belong together. Raises DataError for
    results that cannot be used, OutputError if ``out`` cannot be written.
    """
    table, notes = read_table(runs)
    text = as_card(table, row) if format == "card" else FORMATS[format](table)
    if out is None:
        sys.stdout.write(text + "\n")
        return notes
    try:
        with replaced_file(out) as unfinished:
            unfinished.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{out} could not be written: {error.strerror}.") from error
    return notes
