"""`sparsebert finetune`: a model folder to a fine-tuned one, with its zeros locked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsebert.cli.console import (
    TASK_HELP,
    ForceOption,
    JsonOption,
    ModelArgument,
    OutArgument,
    check_task,
    emit,
    progress_bar,
    read_seeds,
    seed_executor,
    stderr,
    usage_error,
)
from sparsebert.cli.files import Engine
from sparsebert.cli.options import NOTHING, Given, Group
from sparsebert.tasks.data_options import DataOptions
from sparsebert.training.distributed import is_main
from sparsebert.training.options import FinetuneOptions

_UNSCORED = "no validation split: not scored."


def finetune(
    model: ModelArgument,
    out: OutArgument,
    task: Annotated[
        str,
        typer.Option(metavar="NAME", help=TASK_HELP),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Folder with train and validation (or dev) files: parquet, csv, tsv, json or "
            "jsonl, also gzipped; or one file. Without it, the task is fetched from the hub.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|NAME",
            help="A recipe.yaml with the options below, like the one beside every fine-tuned "
            "model, or one that comes with sparsebert: best, dense, oneshot, ... Options given "
            "here override it.",
        ),
    ] = None,
    training: Annotated[Given, Group(FinetuneOptions)] = NOTHING,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N|S,S,...",
            help="Fine-tune from seeds 1 to N, or from those listed, into OUT/seed-1, ... The same "
            "command resumes where it stopped. A teacher may be such a folder too.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue OUT's unfinished run, kept in OUT.training."),
    ] = False,
    engine: Annotated[
        Engine,
        typer.Option(
            help="With --seeds: one after another here (local), or side by side on a Ray cluster, "
            "else on this machine's cores (ray)."
        ),
    ] = "local",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --engine ray: CPU threads per seed.",
            show_default="the cluster's cores, divided among the seeds",
        ),
    ] = None,
    columns: Annotated[Given, Group(DataOptions)] = NOTHING,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Fine-tune a model with its zeros locked, and score it.

    Weights that pruning set to zero stay exactly zero; a dense model is fine-tuned the same way.
    The result is scored on the task's validation split. Ctrl-C saves the run, and the same command
    with --resume continues it. Pack the result next.
    """
    from sparsebert.evaluation.results import by_class_lines
    from sparsebert.tasks.table import get_task, is_own
    from sparsebert.training import finetune as run
    from sparsebert.training.seeds import finetune_seeds

    check_task(task)
    with usage_error():
        DataOptions(**columns)
        if recipe is None:
            FinetuneOptions(**training)

    several = None if seeds is None else read_seeds(seeds)
    if several and "seed" in training:
        raise typer.BadParameter("cannot be combined with --seeds.", param_hint="--seed")
    if engine != "ray" and threads is not None:
        raise typer.BadParameter("only applies with --engine ray.", param_hint="--threads")
    if engine == "ray" and not several:
        raise typer.BadParameter("ray only applies with --seeds.", param_hint="--engine")
    try:
        with progress_bar() as progress:
            if several:
                scores = finetune_seeds(
                    model,
                    out,
                    task=task,
                    data=data,
                    seeds=several,
                    recipe=recipe,
                    force=force,
                    executor=seed_executor(engine, threads),
                    progress=progress,
                    **training,
                    **columns,
                )
                emit(scores.as_dict(), scores.row() or _UNSCORED, as_json=json)
                return
            result = run(
                model,
                out,
                task=task,
                data=data,
                recipe=recipe,
                resume=resume,
                force=force,
                progress=progress,
                **training,
                **columns,
            )
    except KeyboardInterrupt as stop:
        if str(stop) and is_main():  # says where the run is kept
            stderr.print(str(stop), markup=False)
        raise
    lines = [
        f"{out}: {result.steps} steps on {result.rows:,} rows in {result.seconds:.1f} s "
        f"({result.examples_per_second:.1f} rows/s)."
    ]
    lines += [f"note: {note}" for note in result.notes]
    if is_own(task) or get_task(task).unanswerable:
        lines += by_class_lines(result.by_class)
    lines += [result.row() or _UNSCORED]
    emit(result.as_dict(), "\n".join(lines), as_json=json)
