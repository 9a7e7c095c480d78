"""`sparsebert demo`: `halve` on a real model and real sentences, with its report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsebert.cli.console import JsonOption, emit, progress_bar, stderr


def demo(
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Folder to write the data, the model and the report to."
        ),
    ] = Path("sparsebert-demo"),
    effort: Annotated[
        str,
        typer.Option(metavar="NAME", help="As in `halve`: quick (minutes), standard, thorough."),
    ] = "quick",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads per engine.", show_default="all cores")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Halve again, replacing the halved model in DIR.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Halve all-MiniLM-L6-v2 as a classifier of film reviews.

    Runs `sparsebert halve --data` on a model and 8,530 labelled sentences that the [demo] extra
    brings, in minutes on two cores, and measures it beside torch and every other engine that is
    installed.
    """
    from sparsebert.demo import HALVED_NAME, run_demo
    from sparsebert.halving.report import REPORT_NAME

    with progress_bar() as progress:
        result = run_demo(
            out,
            effort=effort,
            threads=threads,
            force=force,
            progress=progress,
            said=lambda sentence: stderr.print(sentence, markup=False),
        )
    report = out / HALVED_NAME / REPORT_NAME
    text = "\n".join([*result.sentences(), "", f"The report is in {report.resolve()}"])
    emit({**result.as_dict(), "report": str(report)}, text, as_json=json)
