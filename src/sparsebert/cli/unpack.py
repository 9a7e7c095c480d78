"""`sparsebert unpack`: a packed folder back to an ordinary one."""

from __future__ import annotations

from sparsebert.cli.console import (
    ForceOption,
    JsonOption,
    ModelArgument,
    OutArgument,
    emit,
    progress_bar,
)


def unpack(
    model: ModelArgument, out: OutArgument, force: ForceOption = False, json: JsonOption = False
) -> None:
    """Turn a packed model back into a transformers folder, exactly if it was packed as fp32."""
    from sparsebert.packing import unpack as run

    with progress_bar() as progress:
        result = run(model, out, force=force, progress=progress)
    kind = "as they were packed" if result["exact"] else f"rounded to {result['dtype']}"
    text = (
        f"{out}: {result['tensors']} tensors, {result['bytes'] / 1e6:.1f} MB, values {kind} "
        f"({result['seconds']:.1f} s)."
    )
    emit(result, text, as_json=json)
