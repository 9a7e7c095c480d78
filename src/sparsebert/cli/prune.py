"""`sparsebert prune`: a dense model folder to a sparse one; `inspect` shows what is pruned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sparsebert.cli.console import (
    ForceOption,
    JsonOption,
    ModelArgument,
    OutArgument,
    emit,
    progress_bar,
    stderr,
    usage_error,
)
from sparsebert.cli.options import NOTHING, Given, Group, declared_option
from sparsebert.tasks.data_options import DataOptions
from sparsebert.training.options import FinetuneOptions
from sparsebert.training.upstream.options import UpstreamOptions


def prune(
    model: ModelArgument,
    out: OutArgument,
    pattern: Annotated[
        str,
        typer.Option(metavar="N:M", help="Keep N of every M adjacent weights: 1:2, 2:4, 4:8, ..."),
    ] = "1:2",
    shared_rows: Annotated[int, declared_option(FinetuneOptions, "shared_rows")] = 1,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="How to choose the weights that stay: magnitude, wanda or second-order.",
            show_default="second-order with --calibration or --corpus, else magnitude",
        ),
    ] = None,
    parts: Annotated[
        str,
        typer.Option(
            metavar="PART,...", help="Parts to prune, separated by commas: encoder, pooler, head."
        ),
    ] = "encoder",
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="TEXTS",
            help="For wanda and second-order, texts of the kind the model will read: a .txt file "
            "with one text per line, a table (parquet, csv, jsonl) or a folder with a train file.",
            show_default="the corpus, if given",
        ),
    ] = None,
    calibration_rows: Annotated[
        int | None,
        typer.Option(
            min=1, help="Calibrate on a fixed selection of this many texts.", show_default="1024"
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Task whose columns the calibration texts have."),
    ] = None,
    corpus: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Then train the sparse model to reproduce the dense one on these texts, for use "
            "with any task: a .txt file with one text per line, a table (parquet, csv, jsonl) or "
            "a folder with a train file. May be repeated.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="With --corpus, if MODEL is already sparse: the dense model it continues to learn "
            "from.",
            show_default="MODEL itself, before it is pruned",
        ),
    ] = None,
    training: Annotated[Given, Group(UpstreamOptions)] = NOTHING,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue OUT's unfinished run, kept in OUT.training.",
        ),
    ] = False,
    columns: Annotated[Given, Group(DataOptions, ("text_column", "pair_column"))] = NOTHING,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Prune a model's linear layers to N:M structured sparsity.

    The magnitude method takes seconds and no data; second-order takes minutes and some texts for
    calibration, and costs far less accuracy.

    The result is an ordinary transformers folder with zeros in it; layers that already fit the
    pattern are left unchanged. Fine-tune it next, to win back the accuracy.
    """
    from sparsebert.checkpoint import PARTS
    from sparsebert.patterns import Pattern
    from sparsebert.pruning import prune as run
    from sparsebert.pruning.methods import When, get_method

    with usage_error("--pattern" if shared_rows == 1 else "--shared-rows"):
        target = Pattern.parse(pattern, shared_rows)
    method = method or ("second-order" if corpus or calibration else "magnitude")
    with usage_error("--method"):
        get_method(method, When.ONE_SHOT)
    chosen = [part.strip() for part in parts.split(",")]
    if not set(chosen) <= set(PARTS):
        raise typer.BadParameter(f"choose from {', '.join(PARTS)}.", param_hint="--parts")

    pruning: dict[str, Any] = {
        "shared_rows": shared_rows,
        "method": method,
        "parts": chosen,
        "calibration": calibration,
        "task": task,
        "force": force,
        **columns,
    }
    if calibration_rows is not None:
        pruning["calibration_rows"] = calibration_rows
    if corpus:
        with usage_error():
            UpstreamOptions(**training)
        arguments = {"pattern": target.ratio, "resume": resume, **pruning, **training}
        arguments["teacher"] = teacher
        _upstream(model, out, corpus, arguments, as_json=json)
        return
    alone = {"resume": resume, "teacher": teacher is not None}
    for name in (*training, *(name for name, given in alone.items() if given)):
        raise typer.BadParameter(
            "only applies with --corpus.", param_hint="--" + name.replace("_", "-")
        )
    with progress_bar() as progress:
        result = run(model, out, pattern=target.ratio, progress=progress, **pruning)
    kept = result.already_sparse
    text = (
        f"{out}: {len(result.pruned)} layers pruned to {target}, {result.zeros:,} of "
        f"{'the' if kept else 'their'} {result.weights:,} weights"
        f"{' of all sparse layers' if kept else ''} are zero ({result.seconds:.1f} s)."
    )
    if kept:
        text += (
            f"\n{len(kept)} layers were already {target} and keep their masks: "
            f"{', '.join(kept[:3])}{' ...' if len(kept) > 3 else ''}"
        )
    text += "".join(f"\nnote: {note}" for note in result.notes)
    if method == "magnitude" and result.pruned:
        text += (
            "\nnote: pruned by magnitude, the quickest method and the one that costs most accuracy:"
            " --calibration TEXTS prunes by second order, and `sparsebert halve` distils as well."
        )
    emit(result.as_dict(), text, as_json=json)


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


def inspect(
    model: ModelArgument,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept",
            help="Accept a packed folder as it is now, after you changed one of its files: its "
            "checksums are rewritten first.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show the zeros and the pattern of each linear layer.

    A packed model is also checked against its checksums, and run again on the inputs it was given
    when it was packed. The exit code is 1 if a recorded pattern is broken or the answers differ.
    """
    from sparsebert.packing import renew_checksums
    from sparsebert.pruning import inspect as run

    if accept:
        renew_checksums(model)
    with progress_bar() as progress:
        found = run(model, progress=progress)
    emit(found.to_dict(), found.listing(), as_json=json)
    if not found.whole:
        raise typer.Exit(1)
