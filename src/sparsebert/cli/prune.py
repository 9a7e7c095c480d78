"""`sparsebert prune`: a dense model folder to a sparse one."""

from __future__ import annotations

from typing import Annotated

import typer

from sparsebert.cli.console import (
    ForceOption,
    JsonOption,
    ModelArgument,
    OutArgument,
    emit,
    progress_bar,
)


def prune(
    model: ModelArgument,
    out: OutArgument,
    pattern: Annotated[
        str,
        typer.Option(metavar="N:M", help="Keep N of every M adjacent weights: 1:2, 2:4, 4:8, ..."),
    ] = "1:2",
    method: Annotated[
        str, typer.Option(metavar="NAME", help="What decides which weights stay: magnitude.")
    ] = "magnitude",
    parts: Annotated[
        str,
        typer.Option(
            metavar="PART,...", help="What to prune, separated by commas: encoder, pooler, head."
        ),
    ] = "encoder",
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Prune a model's linear layers to N:M structured sparsity by magnitude.

    The result is an ordinary transformers folder with zeros in it; layers that fit the pattern
    already are left as they are. Fine-tune it next, to win back the accuracy.
    """
    from sparsebert.checkpoint import PARTS
    from sparsebert.errors import PatternError
    from sparsebert.patterns import Pattern
    from sparsebert.pruning import METHODS
    from sparsebert.pruning import prune as run

    try:
        wanted = Pattern.parse(pattern)
    except PatternError as error:
        raise typer.BadParameter(str(error), param_hint="--pattern") from error
    if method not in METHODS:
        raise typer.BadParameter(f"choose from {', '.join(METHODS)}.", param_hint="--method")
    chosen = [part.strip() for part in parts.split(",")]
    if not set(chosen) <= set(PARTS):
        raise typer.BadParameter(f"choose from {', '.join(PARTS)}.", param_hint="--parts")

    with progress_bar() as progress:
        result = run(
            model, out, pattern=wanted, method=method, parts=chosen, force=force, progress=progress
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
    emit(result, text, as_json=json)
