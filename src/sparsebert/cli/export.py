"""`sparsebert export`: a model folder to what another engine loads."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sparsebert.cli.console import (
    ForceOption,
    JsonOption,
    ModelArgument,
    OutArgument,
    emit,
    progress_bar,
)


def export(
    model: ModelArgument,
    out: OutArgument,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="TARGET",
            help="onnx, openvino, or torch-2to4 (2:4 tensors of torch on NVIDIA GPUs).",
        ),
    ],
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Turn a model into a folder that another engine loads, its zeros still in place.

    ONNX and OpenVINO graphs are compared with the model's own answers before they are kept, and
    open with optimum's ORTModelForX and OVModelForX. A packed model is unpacked on the way.
    """
    from sparsebert.exporting import TARGETS
    from sparsebert.exporting import export as run

    if to not in TARGETS:
        raise typer.BadParameter(f"choose from {', '.join(TARGETS)}.", param_hint="--to")
    with progress_bar() as progress:
        result = run(model, out, to=to, force=force, progress=progress)
    emit(result, _told(result), as_json=json)


def _told(result: dict[str, Any]) -> str:
    file = f"{result['out']}: {result['file']}, {result['bytes'] / 1e6:.1f} MB"
    if result["to"] == "torch-2to4":
        dense = "".join(
            f"\nleft dense: {each}: {why}" for each, why in result["left_dense"].items()
        )
        return (
            f"{file} in float16; {result['layers']} layers fit 2:4 tensors, which "
            f"sparsebert.load_torch_2to4 makes on the GPU ({result['seconds']:.1f} s).{dense}"
        )
    zeros = (
        f"all {result['zeros']:,} zeros of {result['layers']} pruned layers are in it"
        if result["layers"]
        else "the model is dense, there were no zeros to keep"
    )
    return (
        f"{file}; {zeros}; answers differ from transformers' by {result['largest_difference']:.1e} "
        f"at most ({result['seconds']:.1f} s)."
    )
