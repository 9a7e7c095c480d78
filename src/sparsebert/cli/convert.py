"""`sparsebert convert`: old pickled weights to safetensors, once."""

from __future__ import annotations

from sparsebert.cli.console import (
    ForceOption,
    JsonOption,
    ModelArgument,
    OutArgument,
    emit,
    progress_bar,
)


def convert(
    model: ModelArgument, out: OutArgument, force: ForceOption = False, json: JsonOption = False
) -> None:
    """Turn a model with pytorch_model.bin weights into one with safetensors.

    Pickles can run code when they are opened; this is the only command that opens one, through
    torch's loader that builds nothing but tensors. It needs the [train] extra.
    """
    from sparsebert.checkpoint.convert import convert as run

    with progress_bar() as progress:
        result = run(model, out, force=force, progress=progress)
    text = f"{out}: {result['tensors']} tensors, {result['bytes'] / 1e6:.1f} MB in safetensors."
    if result["from"] == "safetensors":
        text += " (The model had safetensors already; they were written anew as one file.)"
    emit(result, text, as_json=json)
