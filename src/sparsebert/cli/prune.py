"""`sparsebert prune`: a dense model folder to a sparse one."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from sparsebert.cli.columns import PairColumn, TextColumn
from sparsebert.cli.console import (
    ForceOption,
    JsonOption,
    ModelArgument,
    OutArgument,
    SharedRowsOption,
    emit,
    given_options,
    progress_bar,
    stderr,
)
from sparsebert.training.upstream_options import UpstreamOptions

_TRAINING = "Training on a corpus"
_DEFAULT = UpstreamOptions()
_OPTIONS = tuple(each.name for each in fields(UpstreamOptions))


def prune(
    context: typer.Context,
    model: ModelArgument,
    out: OutArgument,
    pattern: Annotated[
        str,
        typer.Option(metavar="N:M", help="Keep N of every M adjacent weights: 1:2, 2:4, 4:8, ..."),
    ] = "1:2",
    shared_rows: SharedRowsOption = 1,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What decides which weights stay: magnitude, wanda or second-order.",
            show_default="second-order with --corpus, else magnitude",
        ),
    ] = None,
    parts: Annotated[
        str,
        typer.Option(
            metavar="PART,...", help="What to prune, separated by commas: encoder, pooler, head."
        ),
    ] = "encoder",
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="TEXTS",
            help="For wanda and second-order, texts of the kind that the model will read: a .txt "
            "file with a text a line, a table (parquet, csv, jsonl) or a folder with a train file.",
            show_default="the corpus, if there is one",
        ),
    ] = None,
    calibration_rows: Annotated[
        int, typer.Option(min=1, help="Calibrate on a fixed selection of so many texts.")
    ] = 1024,
    task: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The task whose columns the calibration texts have."),
    ] = None,
    corpus: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Go on to train the sparse model against the dense one on these texts, for any "
            "task: a .txt file with a text a line, a table (parquet, csv, jsonl) or a folder with "
            "a train file. May be given several times.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    epochs: Annotated[
        float,
        typer.Option(help="Passes over the corpus, above 0.", rich_help_panel=_TRAINING),
    ] = _DEFAULT.epochs,
    learning_rate: Annotated[
        float,
        typer.Option(help="Its peak, above 0.", rich_help_panel=_TRAINING),
    ] = _DEFAULT.learning_rate,
    batch_size: Annotated[
        int,
        typer.Option(
            min=1,
            help="Rows at a time; halved when memory runs out.",
            rich_help_panel=_TRAINING,
        ),
    ] = _DEFAULT.batch_size,
    max_length: Annotated[
        int,
        typer.Option(
            min=8,
            help="Tokens of a row; a longer text is cut into several.",
            rich_help_panel=_TRAINING,
        ),
    ] = _DEFAULT.max_length,
    max_rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Train on a fixed selection of so many texts.",
            show_default="all",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    pairs: Annotated[
        float,
        typer.Option(
            help="Share of the texts that are joined with the one that follows, 0 to below 1.",
            rich_help_panel=_TRAINING,
        ),
    ] = _DEFAULT.pairs,
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="auto, fp32 or bf16.",
            rich_help_panel=_TRAINING,
        ),
    ] = _DEFAULT.precision,
    embeddings: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Which word embeddings train: all (train), those of words that occur (used), none "
            "(frozen).",
            rich_help_panel=_TRAINING,
        ),
    ] = _DEFAULT.embeddings,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            help="Fixes the order of rows and the masked tokens.",
            rich_help_panel=_TRAINING,
        ),
    ] = _DEFAULT.seed,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with OUT's unfinished run, kept in OUT.training.",
            rich_help_panel=_TRAINING,
        ),
    ] = False,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Prune a model's linear layers to N:M structured sparsity.

    By magnitude it takes seconds and no data; second-order takes minutes and some texts to
    calibrate on, and costs far less accuracy.

    The result is an ordinary transformers folder with zeros in it; layers that fit the pattern
    already are left as they are. Fine-tune it next, to win back the accuracy.
    """
    from sparsebert.checkpoint import PARTS
    from sparsebert.errors import PatternError, TrainingError
    from sparsebert.patterns import Pattern
    from sparsebert.pruning import prune as run
    from sparsebert.pruning.methods import When, get_method

    try:
        wanted = Pattern.parse(pattern, shared_rows)
    except PatternError as error:
        hint = "--pattern" if shared_rows == 1 else "--shared-rows"
        raise typer.BadParameter(str(error), param_hint=hint) from error
    method = method or ("second-order" if corpus else "magnitude")
    try:
        get_method(method, When.ONE_SHOT)
    except PatternError as error:
        raise typer.BadParameter(str(error), param_hint="--method") from error
    chosen = [part.strip() for part in parts.split(",")]
    if not set(chosen) <= set(PARTS):
        raise typer.BadParameter(f"choose from {', '.join(PARTS)}.", param_hint="--parts")

    given = given_options(context, (*_OPTIONS, "resume"))
    if corpus:
        pruning = {
            "pattern": wanted.ratio,
            "shared_rows": shared_rows,
            "method": method,
            "parts": chosen,
            "calibration": calibration,
            "calibration_rows": calibration_rows,
            "task": task,
            "text_column": text_column,
            "pair_column": pair_column,
        }
        try:
            UpstreamOptions(**{name: given[name] for name in _OPTIONS if name in given})
        except TrainingError as error:
            raise typer.BadParameter(str(error)) from error
        _upstream(model, out, corpus, {**pruning, **given, "force": force}, as_json=json)
        return
    if given:
        name = "--" + next(iter(given)).replace("_", "-")
        raise typer.BadParameter("has no meaning without --corpus.", param_hint=name)
    with progress_bar() as progress:
        result = run(
            model,
            out,
            pattern=wanted,
            method=method,
            parts=chosen,
            calibration=calibration,
            calibration_rows=calibration_rows,
            task=task,
            text_column=text_column,
            pair_column=pair_column,
            force=force,
            progress=progress,
        )
    text = (
        f"{out}: {len(result['pruned'])} layers pruned to {wanted}, "
        f"{result['zeros']:,} of their {result['weights']:,} weights are zero "
        f"({result['seconds']:.1f} s)."
    )
    kept = result["already_sparse"]
    if kept:
        text += (
            f"\n{len(kept)} layers were {wanted} already and keep their masks: "
            f"{', '.join(kept[:3])}{' ...' if len(kept) > 3 else ''}"
        )
    text += "".join(f"\nnote: {note}" for note in result["notes"])
    emit(result, text, as_json=json)


def _upstream(
    model: str, out: Path, corpus: list[Path], options: dict[str, Any], *, as_json: bool
) -> None:
    from sparsebert.training import prune_upstream

    try:
        with progress_bar() as progress:
            result = prune_upstream(model, out, corpus=corpus, progress=progress, **options)
    except KeyboardInterrupt as stop:
        if str(stop):  # says where the run is kept
            stderr.print(str(stop), markup=False)
        raise
    lines = [
        f"{out}: {result.layers} layers {result.pattern} by {result.method}, then {result.steps} "
        f"steps on {result.rows:,} rows ({result.tokens:,} tokens) in {result.seconds:.1f} s "
        f"({result.rows_per_second:.1f} rows/s)."
    ]
    lines += [f"note: {note}" for note in result.notes]
    if result.history:
        first, last = result.history[0]["loss"], result.history[-1]["loss"]
        lines.append(f"The loss went from {first:.4f} to {last:.4f}.")
    emit(result.as_dict(), "\n".join(lines), as_json=as_json)
