"""`sparsebert pack`: a model folder to its packed form."""

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


def pack(
    model: ModelArgument,
    out: OutArgument,
    dtype: Annotated[
        str, typer.Option(metavar="TYPE", help="How values are stored: fp32 (exact), fp16 or int8.")
    ] = "fp32",
    compress: Annotated[
        bool,
        typer.Option(
            "--compress/--no-compress",
            help="Leave out the zeros, or store them too, to measure what leaving them out brings.",
        ),
    ] = True,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Store a model's pruned layers as their kept values and one bit a pair.

    The packed folder is what `embed`, `classify`, `answer` and the Python library load fastest.
    Of a folder of seeds each is packed that is not packed yet.
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
    layers = ", ".join(f"{count} {pattern}" for pattern, count in result["patterns"].items())
    text = (
        f"{out}: {result['bytes'] / 1e6:.1f} MB from {result['source_bytes'] / 1e6:.1f} MB as "
        f"{dtype}; {layers or 'no'} layers compressed, {result['dense']} dense "
        f"({result['seconds']:.1f} s)."
    )
    if compress and not result["compressed"]:
        text += "\nNo layer of this model is sparse: run `sparsebert prune` on it first."
    emit(result, text, as_json=json)
