"""`sparsebert finetune`: a model folder to a fine-tuned one, its zeros locked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsebert.cli.columns import (
    LabelColumn,
    PairColumn,
    PositiveLabel,
    Regression,
    TextColumn,
    ValidationShare,
)
from sparsebert.cli.console import (
    ForceOption,
    JsonOption,
    ModelArgument,
    OutArgument,
    SharedRowsOption,
    check_task,
    emit,
    given_options,
    progress_bar,
    seed_spread,
    stderr,
    wanted_seeds,
)
from sparsebert.cli.files import Engine
from sparsebert.training.options import OPTION_TYPES, FinetuneOptions
from sparsebert.training.ranks import is_main

_DEFAULT = FinetuneOptions()
_UNSCORED = "no validation split: not scored."


def finetune(
    context: typer.Context,
    model: ModelArgument,
    out: OutArgument,
    task: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="mnli, qqp, qnli, sst2, cola, stsb, mrpc, rte, squad, or custom for your own "
            "rows: text (or text1 and text2) and label.",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A folder with train and validation (or dev) files: parquet, csv, tsv, json or "
            "jsonl, also gzipped; or one file. Without it the task is fetched from the hub.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|NAME",
            help="A recipe.yaml with the options below, such as stands beside every fine-tuned "
            "model, or one of our own: best, dense, oneshot, ... What is given here as well wins.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Fixes the new head, the order of rows and the dropout.")
    ] = _DEFAULT.seed,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N|S,S,...",
            help="Fine-tune from seeds 1 to N, or from those listed, into OUT/seed-1, ... The same "
            "command goes on where it stopped. A teacher may be such a folder too.",
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            help="Passes over the training rows, above 0.",
            show_default="3; with few rows up to 20, for 300 steps",
        ),
    ] = _DEFAULT.epochs,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Its peak, above 0; it rises and falls linearly.",
            show_default="5e-5; 1e-4 for models narrower than BERT-base",
        ),
    ] = _DEFAULT.learning_rate,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Rows at a time; halved when memory runs out.")
    ] = _DEFAULT.batch_size,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Tokens of a row, in training and from then on.",
            show_default="128, 384 for squad",
        ),
    ] = _DEFAULT.max_length,
    warmup_ratio: Annotated[
        float, typer.Option(help="Share of the steps in which the rate rises, 0 to below 1.")
    ] = _DEFAULT.warmup_ratio,
    weight_decay: Annotated[
        float, typer.Option(min=0, help="Not for biases and layer norms.")
    ] = _DEFAULT.weight_decay,
    optimizer: Annotated[
        str, typer.Option(metavar="NAME", help="adamw, sgd (momentum 0.9) or adafactor.")
    ] = _DEFAULT.optimizer,
    gradient_accumulation: Annotated[
        int, typer.Option(min=1, help="Batches in an optimiser step.")
    ] = _DEFAULT.gradient_accumulation,
    max_grad_norm: Annotated[
        float, typer.Option(min=0, help="Clip gradients to this norm; 0 does not clip.")
    ] = _DEFAULT.max_grad_norm,
    dropout: Annotated[
        float | None,
        typer.Option(
            help="Dropout while training, 0 to below 1. A small or pruned model does better, and "
            "trains faster, with 0.",
            show_default="0 for a sparse or small model, else its own",
        ),
    ] = _DEFAULT.dropout,
    early_stopping: Annotated[
        int,
        typer.Option(
            min=0,
            help="Stop after so many epochs without a better score and keep the best epoch; 0 does "
            "not. It is chosen on the validation split itself, which flatters the score.",
        ),
    ] = _DEFAULT.early_stopping,
    max_rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Train on a fixed selection of so many rows, the same for every seed.",
            show_default="all",
        ),
    ] = _DEFAULT.max_rows,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with OUT's unfinished run, kept in OUT.training."),
    ] = False,
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="fp32, or bf16: matrix products in bfloat16, weights and scores in fp32. auto is "
            "bf16 where the processor has instructions for it.",
        ),
    ] = _DEFAULT.precision,
    embeddings: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Word embeddings to train: train is all of them, used those of the words in the "
            "training rows (faster, and the others lose nothing), frozen none.",
        ),
    ] = _DEFAULT.embeddings,
    quantize: Annotated[
        str | None,
        typer.Option(
            metavar="int8",
            help="Train and score with the rounding of the int8 engine, so that packing with "
            "--dtype int8 costs nothing.",
        ),
    ] = _DEFAULT.quantize,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="lock keeps the zeros the model has; gradual and snip-momentum start from a dense "
            "model and prune it step by step while it trains.",
        ),
    ] = _DEFAULT.method,
    pattern: Annotated[
        str,
        typer.Option(
            metavar="N:M",
            help="What gradual and snip-momentum prune to: keep N of every M adjacent weights.",
        ),
    ] = _DEFAULT.pattern,
    shared_rows: SharedRowsOption = _DEFAULT.shared_rows,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A dense model to learn from: the student is trained to answer as it does. A "
            "folder of seeds will do; an encoder is fine-tuned first, into OUT.teacher.",
        ),
    ] = _DEFAULT.teacher,
    temperature: Annotated[
        float, typer.Option(help="With a teacher: softens both models' answers; above 0.")
    ] = _DEFAULT.temperature,
    task_weight: Annotated[
        float,
        typer.Option(min=0, help="With a teacher: how much the true labels count."),
    ] = _DEFAULT.task_weight,
    logits_weight: Annotated[
        float,
        typer.Option(min=0, help="With a teacher: how much its answers count."),
    ] = _DEFAULT.logits_weight,
    hidden_weight: Annotated[
        float,
        typer.Option(min=0, help="With a teacher: how much its hidden states count."),
    ] = _DEFAULT.hidden_weight,
    attention_weight: Annotated[
        float,
        typer.Option(min=0, help="With a teacher: how much its attention counts."),
    ] = _DEFAULT.attention_weight,
    unlabelled: Annotated[
        str | None,
        typer.Option(
            metavar="TEXTS",
            help="With a teacher: more texts of the same kind, without labels, for it to answer: "
            "a .txt file with a text a line, a table (parquet, csv, jsonl) or a folder with a "
            "train file.",
        ),
    ] = _DEFAULT.unlabelled,
    unlabelled_rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of these a fixed selection of so many.",
            show_default="all",
        ),
    ] = _DEFAULT.unlabelled_rows,
    engine: Annotated[
        Engine,
        typer.Option(
            help="With --seeds: one after the other here (local), or side by side on a Ray "
            "cluster, else on this machine's cores (ray)."
        ),
    ] = Engine.LOCAL,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --engine ray: CPU threads of each seed.",
            show_default="the cluster's cores over the seeds",
        ),
    ] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    regression: Regression = False,
    positive_label: PositiveLabel = None,
    validation_share: ValidationShare = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Fine-tune a model on a task with its zeros locked, and score it on the validation split.

    Weights that pruning set to zero stay exactly zero; a dense model is fine-tuned the same way.
    Ctrl-C saves the run: the same command with --resume goes on. Next: pack the result.
    """
    from sparsebert.errors import DataError, TrainingError
    from sparsebert.evaluation.result import by_class_lines
    from sparsebert.tasks.data_options import DATA_OPTIONS, split_options
    from sparsebert.tasks.table import CUSTOM
    from sparsebert.training import finetune as run
    from sparsebert.training.options import options_from
    from sparsebert.training.seeds import finetune_seeds

    check_task(task)
    given = given_options(context, (*OPTION_TYPES, *DATA_OPTIONS))
    try:
        _, training = split_options(given)
        if recipe is None:
            options_from(training)
    except (DataError, TrainingError) as error:
        raise typer.BadParameter(str(error)) from error

    several = None if seeds is None else wanted_seeds(seeds)
    if several and given.pop("seed", None) is not None:
        raise typer.BadParameter("cannot be given beside --seeds.", param_hint="--seed")
    if engine is not Engine.RAY and threads is not None:
        raise typer.BadParameter("is for --engine ray.", param_hint="--threads")
    if engine is Engine.RAY and not several:
        raise typer.BadParameter("ray is for --seeds.", param_hint="--engine")
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
                    spread=seed_spread(engine.value, threads),
                    progress=progress,
                    **given,
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
                **given,
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
    if task.lower() == CUSTOM:
        lines += by_class_lines(result.by_class)
    lines += [result.row() or _UNSCORED]
    emit(result.as_dict(), "\n".join(lines), as_json=json)
