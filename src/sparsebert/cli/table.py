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
            metavar="RUNS...",
            help="A folder RUNS/ROW/TASK (rows: dense, oneshot, best, best-int8) of models or "
            "folders of seeds, or a results.json made from one. Of several, say from several "
            "machines, the seeds count together; of one seed given twice, the last.",
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="markdown; json (results.json); svg (a plot); card (a README.md for the hub).",
        ),
    ] = "markdown",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it there instead of to standard output."),
    ] = None,
    row: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The row whose model the card is of.",
            show_default="the last of the table",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of several models in RUNS, show this one alone."),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Show these rows alone, and dense, which they are compared with.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print the table of the model card: dense beside 1:2, on each task, over all seeds.

    Each cell is a mean and its sample standard deviation; below stands the share of dense that each
    row keeps, and a warning wherever rows are not comparable. --json is --format json.
    """
    from sparsebert.table.formats import FORMATS, write

    if json:
        format = "json"
    if format not in FORMATS:
        raise typer.BadParameter(f"choose from {', '.join(FORMATS)}.", param_hint="--format")
    if row is not None and format != "card":
        raise typer.BadParameter("is for --format card.", param_hint="--row")
    chosen = [name.strip() for name in rows.split(",")] if rows else ()
    for note in write(*runs, format=format, out=out, row=row, model=model, rows=chosen):
        stderr.print(f"note: {note}", markup=False)
