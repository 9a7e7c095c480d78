"""`sparsebert finetune`: a model folder to a fine-tuned one, its zeros locked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsebert.cli.console import (
    ForceOption,
    JsonOption,
    ModelArgument,
    OutArgument,
    emit,
    progress_bar,
    stderr,
)


def finetune(
    model: ModelArgument,
    out: OutArgument,
    task: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="mnli, qqp, qnli, sst2, cola, stsb, mrpc, rte, squad, or custom for your own "
            "columns: text (or text1 and text2) and label.",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A folder with train and validation files (parquet, csv, jsonl), or one file to "
            "train on. Without it the task is fetched from the hub.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Fixes the new head, the order of rows and the dropout.")
    ] = 1,
    epochs: Annotated[float, typer.Option(min=0, help="Passes over the training rows.")] = 3,
    learning_rate: Annotated[
        float, typer.Option(min=0, help="Its peak; it rises and falls linearly.")
    ] = 5e-5,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Rows at a time; halved when memory runs out.")
    ] = 32,
    max_length: Annotated[
        int | None,
        typer.Option(min=8, help="Tokens of a row.", show_default="128, 384 for squad"),
    ] = None,
    warmup_ratio: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the steps in which the rate rises.")
    ] = 0.06,
    weight_decay: Annotated[
        float, typer.Option(min=0, help="Not for biases and layer norms.")
    ] = 0.01,
    optimizer: Annotated[
        str, typer.Option(metavar="NAME", help="adamw, sgd (momentum 0.9) or adafactor.")
    ] = "adamw",
    gradient_accumulation: Annotated[
        int, typer.Option(min=1, help="Batches in an optimiser step.")
    ] = 1,
    max_grad_norm: Annotated[
        float, typer.Option(min=0, help="Clip gradients to this norm; 0 does not clip.")
    ] = 1.0,
    dropout: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Dropout while training.", show_default="the model's own"),
    ] = None,
    early_stopping: Annotated[
        int,
        typer.Option(
            min=0,
            help="Stop after so many epochs without a better score and keep the best epoch; 0 does "
            "not. It is chosen on the validation split itself, which flatters the score.",
        ),
    ] = 0,
    max_rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Train on a fixed selection of so many rows, the same for every seed.",
            show_default="all",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with OUT's unfinished run, kept in OUT.training."),
    ] = False,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Fine-tune a model on a task with its zeros locked, and score it on the validation split.

    Weights that pruning set to zero stay exactly zero; a dense model is fine-tuned the same way.
    Ctrl-C saves the run: the same command with --resume goes on. Next: pack the result.
    """
    from sparsebert.tasks.table import CUSTOM, TASK_NAMES, TASKS
    from sparsebert.training import finetune as run
    from sparsebert.training.options import OPTIMIZERS

    if task.lower().replace("-", "") not in (*TASKS, CUSTOM):
        raise typer.BadParameter(f"choose from {', '.join(TASK_NAMES)}.", param_hint="--task")
    if optimizer not in OPTIMIZERS:
        raise typer.BadParameter(f"choose from {', '.join(OPTIMIZERS)}.", param_hint="--optimizer")
    for name, value in (("--epochs", epochs), ("--learning-rate", learning_rate)):
        if value <= 0:
            raise typer.BadParameter("must be greater than 0.", param_hint=name)
    for name, share in (("--warmup-ratio", warmup_ratio), ("--dropout", dropout)):
        if share == 1:
            raise typer.BadParameter("must be below 1.", param_hint=name)

    try:
        with progress_bar() as progress:
            result = run(
                model,
                out,
                task=task,
                data=data,
                seed=seed,
                epochs=epochs,
                learning_rate=learning_rate,
                batch_size=batch_size,
                max_length=max_length,
                warmup_ratio=warmup_ratio,
                weight_decay=weight_decay,
                max_rows=max_rows,
                optimizer=optimizer,
                gradient_accumulation=gradient_accumulation,
                max_grad_norm=max_grad_norm,
                early_stopping=early_stopping,
                resume=resume,
                dropout=dropout,
                force=force,
                progress=progress,
            )
    except KeyboardInterrupt as stop:
        if str(stop):  # says where the run is kept
            stderr.print(str(stop), markup=False)
        raise
    lines = [
        f"{out}: {result.steps} steps on {result.rows:,} rows in {result.seconds:.1f} s "
        f"({result.examples_per_second:.1f} rows/s)."
    ]
    lines += [f"note: {note}" for note in result.notes]
    lines += [result.row() or "no validation split: not scored."]
    emit(result.as_dict(), "\n".join(lines), as_json=json)
