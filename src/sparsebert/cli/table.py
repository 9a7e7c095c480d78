"""`sparsebert table`: the scores of all runs as the table of a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsebert.cli.console import JsonOption, stderr


def table(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUNS",
            help="Folder laid out as RUNS/ROW/TASK (rows: dense, oneshot, best, best-int8), of "
            "models or folders of seeds, or a results.json made from one. Seeds of several, such "
            "as from several machines, count together; of a seed given twice, the last counts.",
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="markdown, json (results.json), svg (a plot) or card (a README.md for the hub).",
        ),
    ] = "markdown",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write to instead of standard output."),
    ] = None,
    row: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --format card: the row whose model the card describes.",
            show_default="the last row of the table",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="If RUNS hold several models, show only this one."),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Show only these rows, and dense, which they are compared with.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print the model card's table: dense beside 1:2, on each task.

    Each cell is the mean over all seeds and its sample standard deviation; below are the share of
    dense that each row keeps, and a warning wherever rows are not comparable. --json is --format
    json.
    """
    from sparsebert.table.formats import FORMATS, write

    if format not in FORMATS:
        raise typer.BadParameter(f"choose from {', '.join(FORMATS)}.", param_hint="--format")
    if json and format not in ("markdown", "json"):
        raise typer.BadParameter(f"cannot be used with --format {format}.", param_hint="--json")
    if json:
        format = "json"
    if row is not None and format != "card":
        raise typer.BadParameter("only applies with --format card.", param_hint="--row")
    chosen = [name.strip() for name in rows.split(",")] if rows else ()
    for note in write(*runs, format=format, out=out, row=row, model=model, rows=chosen):
        stderr.print(f"note: {note}", markup=False)
