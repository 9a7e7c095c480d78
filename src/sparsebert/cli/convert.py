"""The commands that write a model folder in another format: convert, pack, unpack, export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sparsebert.cli.console import (
    ForceOption,
    JsonOption,
    ModelArgument,
    OutArgument,
    emit,
    progress_bar,
)

if TYPE_CHECKING:
    from sparsebert.exporting import ExportResult


def convert(
    model: ModelArgument,
    out: OutArgument,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="For a model with LoRA tasks (jina-embeddings-v3): the one to merge into its "
            "weights, such as retrieval.query, or none for the weights without any.",
        ),
    ] = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Convert a model's pytorch_model.bin weights to safetensors.

    Pickles can run code when they are opened. This is the only command that reads weights from
    one, through torch's loader that builds nothing but tensors. It needs the [train] extra.
    """
    from sparsebert.checkpoint.convert import convert as run

    with progress_bar() as progress:
        result = run(model, out, task=task, force=force, progress=progress)
    text = f"{out}: {result.tensors} tensors, {result.bytes / 1e6:.1f} MB in safetensors."
    if task:
        text += f" (The task {task} is merged into them.)"
    elif result.source_format == "safetensors":
        text += " (The model already had safetensors; they were rewritten as one file.)"
    emit(result.as_dict(), text, as_json=json)


def pack(
    model: ModelArgument,
    out: OutArgument,
    dtype: Annotated[
        str,
        typer.Option(metavar="TYPE", help="Type of the stored values: fp32 (exact), fp16 or int8."),
    ] = "fp32",
    compress: Annotated[
        bool,
        typer.Option(
            "--compress/--no-compress",
            help="Leave out the zeros, or store them too, to measure the difference.",
        ),
    ] = True,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Pack a model's pruned layers: kept values and one bit per pair.

    A packed folder is what `embed`, `classify`, `answer`, `serve` and the Python library load
    fastest. Of a folder of seeds, every seed that is not packed yet is packed.
    """
    from sparsebert.checkpoint.seeds import seed_folder, seed_folders
    from sparsebert.packing import VALUE_TYPES, check_packed_from
    from sparsebert.packing import pack as run

    if dtype not in VALUE_TYPES:
        raise typer.BadParameter(f"choose from {', '.join(VALUE_TYPES)}.", param_hint="--dtype")
    seeds = seed_folders(model)
    with progress_bar() as progress:
        for seed, folder in seeds.items():
            packed = seed_folder(out, seed)
            if packed.exists() and not force:
                check_packed_from(folder, packed, dtype=dtype, compress=compress)
            else:
                run(folder, packed, dtype=dtype, compress=compress, force=force, progress=progress)
        if not seeds:
            result = run(model, out, dtype=dtype, compress=compress, force=force, progress=progress)
    if seeds:
        there = list(seed_folders(out))
        text = f"{out}: seeds {', '.join(map(str, there))} packed as {dtype}."
        emit({"out": str(out), "dtype": dtype, "seeds": there}, text, as_json=json)
        return
    layers = ", ".join(f"{count} {pattern}" for pattern, count in result.patterns.items())
    text = (
        f"{out}: {result.bytes / 1e6:.1f} MB from {result.source_bytes / 1e6:.1f} MB as "
        f"{dtype}; {layers or 'no'} layers compressed, {result.dense} dense "
        f"({result.seconds:.1f} s)."
    )
    if compress and not result.compressed:
        text += "\nNo layer of this model is sparse: run `sparsebert prune` on it first."
    emit(result.as_dict(), text, as_json=json)


def unpack(
    model: ModelArgument, out: OutArgument, force: ForceOption = False, json: JsonOption = False
) -> None:
    """Turn a packed model back into a transformers folder.

    The values are exact if it was packed as fp32, else as rounded in packing.
    """
    from sparsebert.packing import unpack as run

    with progress_bar() as progress:
        result = run(model, out, force=force, progress=progress)
    kind = "as they were packed" if result.exact else f"rounded to {result.dtype}"
    text = (
        f"{out}: {result.tensors} tensors, {result.bytes / 1e6:.1f} MB, values {kind} "
        f"({result.seconds:.1f} s)."
    )
    emit(result.as_dict(), text, as_json=json)


def export(
    model: ModelArgument,
    out: OutArgument,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="TARGET",
            help="onnx, openvino, or torch-2to4 (torch's 2:4 tensors on NVIDIA GPUs).",
        ),
    ],
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Export a model for another engine, with its zeros in place.

    ONNX and OpenVINO graphs are compared with the model's own answers before they are kept, and
    open with optimum's ORTModelForX and OVModelForX. A packed model is unpacked first.
    """
    from sparsebert.exporting import TARGETS
    from sparsebert.exporting import export as run

    if to not in TARGETS:
        raise typer.BadParameter(f"choose from {', '.join(TARGETS)}.", param_hint="--to")
    with progress_bar() as progress:
        result = run(model, out, to=to, force=force, progress=progress)
    emit(result.as_dict(), _summary(result), as_json=json)


def _summary(result: ExportResult) -> str:
    file = f"{result.out}: {result.file}, {result.bytes / 1e6:.1f} MB"
    if result.to == "torch-2to4":
        dense = "".join(
            f"\nleft dense: {each}: {why}" for each, why in (result.left_dense or {}).items()
        )
        return (
            f"{file} in float16; {result.layers} layers fit 2:4 tensors, which "
            f"sparsebert.load_torch_2to4 creates on the GPU ({result.seconds:.1f} s).{dense}"
        )
    zeros = (
        f"all {result.zeros:,} zeros of {result.layers} pruned layers are in it"
        if result.layers
        else "the model is dense, so there were no zeros to keep"
    )
    return (
        f"{file}; {zeros}; answers differ from transformers' by at most "
        f"{result.largest_difference:.1e} ({result.seconds:.1f} s)."
    )
