"""`sparsebert doctor`: what is wrong with a model, its training or its data, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsebert.cli.console import JsonOption, check_task, emit, progress_bar, stdout
from sparsebert.cli.options import NOTHING, Given, Group
from sparsebert.tasks.data_options import DataOptions

_COLUMNS = (
    "text_column",
    "pair_column",
    "label_column",
    "label_columns",
    "label_names",
    "regression",
)


def doctor(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Model folder, id on the Hugging Face hub, folder of seeds, or folder of training "
            "checkpoints.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Data to check: a folder with train and validation files, or one file.",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Task of the data, or custom for your own columns.",
            show_default="the one the model was trained on",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="OTHER", help="Another model or folder of seeds to compare with."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rows per batch, to estimate memory for.",
            show_default="the training run's, else the default of finetune",
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Maximum tokens per row, to estimate memory for.",
            show_default="the training run's, else the default of finetune",
        ),
    ] = None,
    columns: Annotated[Given, Group(DataOptions, _COLUMNS)] = NOTHING,
    system: Annotated[
        bool, typer.Option("--system", help="Describe this machine, to paste into a bug report.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Check a model, its training and its data, and say what to do.

    Looks at masks and weights, at what a training run's checkpoints would leak into pruned weights,
    at memory, at the data's labels, rows and lengths, and at how the training went. The exit code
    is 1 if there is an error.
    """
    from sparsebert.diagnosis import describe_system, diagnose

    if model is None and data is None and not system:
        raise typer.BadParameter("nothing to check: use MODEL, --data or --system.")
    if data is not None and model is None and task is None:
        raise typer.BadParameter("is required for --data without a MODEL.", param_hint="--task")
    if task is not None:
        check_task(task)
    if against is not None and model is None:
        raise typer.BadParameter("needs a MODEL to compare with.", param_hint="--against")
    if batch_size is not None and model is None:
        raise typer.BadParameter("only applies to a MODEL.", param_hint="--batch-size")
    if columns and data is None:
        hint = ", ".join(f"--{name.replace('_', '-')}" for name in columns)
        raise typer.BadParameter("only applies with --data.", param_hint=hint)

    about = describe_system() if system else {}
    lines = [f"{name + ':':<24} {value}" for name, value in about.items()]
    result: dict[str, object] = {"system": about} if system else {}
    healthy = True
    if model is not None or data is not None:
        with progress_bar() as progress:
            report = diagnose(
                model,
                data=data,
                task=task,
                against=against,
                batch_size=batch_size,
                max_length=max_length,
                progress=progress,
                **columns,
            )
        signs = stdout.is_terminal and "utf" in stdout.encoding.lower()
        lines += [*([""] if lines else []), *report.lines(signs=signs)]
        result.update(report.as_dict())
        healthy = report.healthy
    emit(result, "\n".join(lines), as_json=json)
    if not healthy:
        raise typer.Exit(1)
