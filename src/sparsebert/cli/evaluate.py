"""`sparsebert evaluate`: a fine-tuned model's row of the table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sparsebert.cli.console import (
    TASK_HELP,
    JsonOption,
    ModelArgument,
    check_task,
    emit,
    progress_bar,
    read_seeds,
    seed_executor,
)
from sparsebert.cli.lines import InferenceOptions
from sparsebert.cli.options import NOTHING, Given, Group
from sparsebert.tasks.data_options import DataOptions

_COLUMNS = (
    "text_column",
    "pair_column",
    "label_column",
    "label_columns",
    "threshold",
    "label_names",
    "positive_label",
)


def evaluate(
    model: ModelArgument,
    task: Annotated[
        str,
        typer.Option(metavar="NAME", help=TASK_HELP),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Folder with a validation (or dev) file, or that file: parquet, csv, tsv, json or "
            "jsonl, also gzipped. Of a single file that the model was trained on, only the "
            "held-out rows are scored. Without it, the task is fetched from the hub.",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="sparsebert (our engine, which auto means) or torch (transformers; not for packed "
            "folders). With --seeds also ray: our engine, with the seeds side by side on a Ray "
            "cluster.",
        ),
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per batch.")] = 32,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Maximum tokens per row.",
            show_default="the model's own, as set in training",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads.", show_default="all cores")
    ] = None,
    inference: Annotated[Given, Group(InferenceOptions, ("compute",))] = NOTHING,
    max_rows: Annotated[
        int | None,
        typer.Option(min=1, help="Score a fixed selection of this many rows.", show_default="all"),
    ] = None,
    zero_shot: Annotated[
        bool,
        typer.Option(
            "--zero-shot",
            help="Without a head: correlate the cosine of the two texts' embeddings with the label "
            "(stsb, or custom pairs with a number).",
        ),
    ] = False,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Split to score, such as train.", show_default="validation"
        ),
    ] = None,
    save: Annotated[
        bool,
        typer.Option("--save", help="Also save the scores in MODEL, as evaluation.json."),
    ] = False,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N|S,S,...",
            help="If MODEL is a folder of seeds: score seeds 1 to N, or those listed, save the "
            "scores, and print their mean and standard deviation.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="With --seeds, if MODEL is not fine-tuned yet: first fine-tune it from each seed "
            "into OUT, then score those.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="FILE|NAME", help="With --out: recipe of the fine-tuning."),
    ] = None,
    columns: Annotated[Given, Group(DataOptions, _COLUMNS)] = NOTHING,
    json: JsonOption = False,
) -> None:
    """Score a fine-tuned model on a task's validation split.

    MODEL is a dense, sparse or packed folder. Prints one row of scores, in percent; MNLI has two
    splits, matched and mismatched.
    """
    from sparsebert.evaluation import evaluate as run
    from sparsebert.evaluation.evaluator import ENGINES
    from sparsebert.evaluation.results import by_class_lines
    from sparsebert.evaluation.seeds import evaluate_seeds, save_evaluation
    from sparsebert.tasks.table import get_task, is_own

    check_task(task)
    on_ray = engine == "ray" and seeds is not None
    if engine not in ENGINES and not on_ray:
        raise typer.BadParameter(f"choose from {', '.join(ENGINES)}.", param_hint="--engine")
    for name, used in (
        ("--max-rows", max_rows),
        ("--zero-shot", zero_shot),
        ("--split", split),
        ("--compute", inference),
    ):
        if used and (save or seeds):  # such scores must not be mistaken for those of the table
            saved = "--save" if save else "--seeds"
            raise typer.BadParameter(
                f"cannot be used with {saved}, which saves scores for the table.", param_hint=name
            )
    arguments: dict[str, Any] = {
        "task": task,
        "data": data,
        "engine": "auto" if on_ray else engine,
        "batch_size": batch_size,
        "max_length": max_length,
        "threads": threads,
        **columns,
    }
    if seeds is None and out is not None:
        raise typer.BadParameter("only applies with --seeds.", param_hint="--out")
    if out is None and recipe is not None:
        raise typer.BadParameter("only applies with --out.", param_hint="--recipe")
    if seeds is not None:
        chosen = read_seeds(seeds)
        executor = seed_executor(engine, threads)
        with progress_bar() as progress:
            if out is not None:
                from sparsebert.training.seeds import finetune_seeds

                lengths: dict[str, Any] = {"max_length": max_length} if max_length else {}
                finetune_seeds(
                    model,
                    out,
                    task=task,
                    data=data,
                    seeds=chosen,
                    recipe=recipe,
                    executor=executor,
                    progress=progress,
                    **lengths,
                    **columns,
                )
            scores = evaluate_seeds(
                out or model, seeds=chosen, executor=executor, progress=progress, **arguments
            )
        emit(scores.as_dict(), scores.row(), as_json=json)
        return
    with progress_bar() as progress:
        result = run(
            model,
            max_rows=max_rows,
            zero_shot=zero_shot,
            split=split,
            progress=progress,
            **inference,
            **arguments,
        )
    if save:
        save_evaluation(result)
    rows = sum(result.rows.values())
    lines = [f"note: {note}" for note in result.notes]
    if is_own(result.task) or get_task(result.task).unanswerable:
        lines += by_class_lines(result.by_class)
    lines += [
        f"{rows:,} rows in {result.seconds:.1f} s by {result.engine} on "
        f"{result.threads} {'thread' if result.threads == 1 else 'threads'}.",
        result.row(),
    ]
    emit(result.as_dict(), "\n".join(lines), as_json=json)
