"""`sparsebert inspect`: how sparse a model is, layer by layer, and whether its pattern is whole."""

from __future__ import annotations

import typer

from sparsebert.cli.console import JsonOption, ModelArgument, emit, progress_bar


def inspect(model: ModelArgument, json: JsonOption = False) -> None:
    """Show each linear layer's zeros and pattern; exit 1 if a recorded pattern is broken."""
    from sparsebert.pruning import inspect as run

    with progress_bar() as progress:
        found = run(model, progress=progress)
    emit(found.to_dict(), found.listing(), as_json=json)
    if not found.whole:
        raise typer.Exit(1)
