"""`sparsebert halve`: a dense model to a halved int8 one that is ready to serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsebert.cli.console import (
    ForceOption,
    JsonOption,
    ModelArgument,
    OutArgument,
    check_task,
    emit,
    progress_bar,
    stderr,
)
from sparsebert.cli.options import NOTHING, Given, Group, declared_option
from sparsebert.tasks.data_options import DataOptions
from sparsebert.training.options import FinetuneOptions


def halve(
    model: ModelArgument,
    out: OutArgument,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Data of the model's task, for distillation and scoring: a folder with train and "
            "validation files, or one file. Labels are optional; the task is recognised by the "
            "columns.",
        ),
    ] = None,
    texts: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="TEXTS",
            help="Texts of the kind the model will read, for calibration and distillation: a .txt "
            "file with one text per line, a table or a folder. May be repeated. With labelled "
            "--data, calibration uses these texts instead of the data's.",
            show_default="the data's; without any, sentences that come with sparsebert",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Task of the data, if its columns do not tell: mnli, sst2, squad, custom, ...",
        ),
    ] = None,
    effort: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How long to distil: quick one round of up to 3 minutes, standard up to two of "
            "half an hour, thorough up to four longer ones.",
        ),
    ] = "standard",
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Points of the score, or of agreement, that may be lost. Rounds end once the loss "
            "is within this; the exit code is 1 if the final loss is not.",
            show_default="rounds go on while they pay; 0.5 of a score, 1 of nearest neighbours "
            "found, 20 of agreement in answers and 5 of other agreement may be lost",
        ),
    ] = None,
    shared_rows: Annotated[int, declared_option(FinetuneOptions, "shared_rows")] = 1,
    seed: Annotated[int, declared_option(FinetuneOptions, "seed")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads per engine.", show_default="all cores")
    ] = None,
    bench: Annotated[
        bool, typer.Option("--bench/--no-bench", help="Measure latency and memory for the report.")
    ] = True,
    peers: Annotated[
        bool,
        typer.Option("--peers", help="Also measure every other engine that is installed."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only print what was recognised and the separate commands."),
    ] = False,
    columns: Annotated[Given, Group(DataOptions)] = NOTHING,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Halve a model: prune, distil, pack to int8, measure the result.

    A classifier, reranker or question-answering model is its own teacher; an encoder is fine-tuned
    on labelled data first, or, without such data, halved as an embedding model. OUT is ready for
    `sparsebert serve` and has a report.html. Ctrl-C keeps the work in OUT.halving, and the same
    command resumes.
    """
    if peers and not bench:
        raise typer.BadParameter("cannot be used with --no-bench.", param_hint="--peers")
    from sparsebert.halving import halve as run
    from sparsebert.halving.run import commands

    if task is not None:
        check_task(task)
    if dry_run:
        said, steps = commands(
            model,
            out,
            data=data,
            task=task,
            texts=texts or (),
            effort=effort,
            shared_rows=shared_rows,
            seed=seed,
            **columns,
        )
        text = "\n".join([*(f"# {sentence}" for sentence in said), *steps])
        emit({"said": said, "commands": steps}, text, as_json=json)
        return
    with progress_bar() as progress:
        result = run(
            model,
            out,
            data=data,
            task=task,
            texts=texts or (),
            effort=effort,
            max_drop=max_drop,
            shared_rows=shared_rows,
            seed=seed,
            threads=threads,
            bench=bench,
            peers=peers,
            force=force,
            progress=progress,
            said=lambda sentence: stderr.print(sentence, markup=False),
            **columns,
        )
    emit(result.as_dict(), "\n".join(result.sentences()), as_json=json)
    if not result.held:
        raise typer.Exit(1)
