"""`sparsebert inspect`: how sparse a model is, layer by layer, and whether its pattern is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sparsebert.cli.console import JsonOption, ModelArgument, emit, progress_bar

if TYPE_CHECKING:
    from sparsebert.pruning import Inspection, LayerReport


def inspect(model: ModelArgument, json: JsonOption = False) -> None:
    """Show each linear layer's zeros and pattern; exit 1 if a recorded pattern is broken."""
    from sparsebert.pruning import inspect as run

    with progress_bar() as progress:
        found = run(model, progress=progress)
    emit(found.to_dict(), found.listing(), as_json=json)
    if not found.whole:
        raise typer.Exit(1)


def _table(found: Inspection) -> str:
    width = max(len(layer.name) for layer in found.layers)
    lines = [f"{'layer':<{width}}  {'outputs':>7} {'inputs':>7} {'zeros':>7}  pattern"]
    lines += [
        f"{layer.name:<{width}}  {layer.rows:>7} {layer.columns:>7} {layer.zeros:>7.1%}  "
        f"{_state(layer)}"
        for layer in found.layers
    ]
    broken = [layer.name for layer in found.layers if not layer.whole]
    sparse = sum(layer.pattern is not None for layer in found.layers)
    lines.append("")
    lines.append(
        f"{found.path}: {found.form} {found.head} model, {sparse} of {len(found.layers)} linear "
        f"layers sparse, {found.zeros:.1%} of their weights zero."
    )
    if broken:
        lines.append(
            f"BROKEN: {len(broken)} layers no longer hold what the folder records. Something "
            "changed them without locking the zeros: prune the model again."
        )
    elif found.pattern:
        recorded = sum(layer.recorded is not None for layer in found.layers)
        lines.append(f"The recorded pattern {found.pattern} is whole in all its {recorded} layers.")
    return "\n".join(lines)


def _state(layer: LayerReport) -> str:
    state = layer.recorded or layer.pattern or "dense"
    if layer.broken_groups:
        return f"{state} BROKEN in {layer.broken_groups} groups"
    if layer.revived:
        return f"{state} BROKEN: {layer.revived} pruned weights are not zero"
    return state
