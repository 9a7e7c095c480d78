"""`sparsebert embed MODEL`: sentence embeddings for lines of text.

sparsebert embed packed/ < sentences.txt > embeddings.jsonl
sparsebert embed packed/ --input sentences.txt --output embeddings.npy
sparsebert embed packed/ --input documents/ --output embeddings/ --engine ray
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsebert.cli.console import ModelArgument, emit, stderr
from sparsebert.cli.files import (
    FilesOptions,
    ForceOption,
    InputOption,
    OutputColumnOption,
    is_folder,
    lines_file,
    run_files,
)
from sparsebert.cli.lines import (
    Format,
    FormatOption,
    InferenceOptions,
    Line,
    run_lines,
    text_parser,
    write_json_lines,
)
from sparsebert.cli.options import NOTHING, Given, Group, chosen

if TYPE_CHECKING:
    import numpy as np


class PoolingChoice(str, Enum):
    """How token vectors become one."""

    MEAN = "mean"
    CLS = "cls"
    MAX = "max"
    MEAN_SQRT_LEN = "mean_sqrt_len"
    WEIGHTEDMEAN = "weightedmean"
    LASTTOKEN = "lasttoken"


class TypeChoice(str, Enum):
    """The type of an embedding's numbers."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    BINARY = "binary"


def embed(
    context: typer.Context,
    model: ModelArgument,
    input: InputOption = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.npy|FOLDER",
            help="Write one array, a row a line, instead of JSON lines (the row of a line that "
            "failed is NaN, or 0); or, for Parquet and JSON lines, a folder of Parquet.",
        ),
    ] = None,
    force: ForceOption = False,
    format: FormatOption = Format.AUTO,
    pooling: Annotated[
        PoolingChoice | None,
        typer.Option(
            "--pooling",
            help="How token vectors become one.",
            show_default="the model's own, else mean",
        ),
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option(
            "--normalize/--no-normalize",
            help="Scale embeddings to length 1.",
            show_default="the model's own, else not",
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            metavar="TEXT",
            help='Put it before each text; "" puts nothing.',
            show_default="the model's own, else nothing",
        ),
    ] = None,
    dimensions: Annotated[
        int | None,
        typer.Option(
            "--dimensions",
            min=1,
            help="Keep the first so many numbers (of models trained for it, Matryoshka).",
            show_default="all",
        ),
    ] = None,
    dtype: Annotated[
        TypeChoice,
        typer.Option(
            "--dtype",
            help="Their type. int8: scaled so that the largest is 127, which leaves cosines as "
            "they are; binary: a bit a number, eight a byte.",
        ),
    ] = TypeChoice.FLOAT32,
    inference: Annotated[Given, Group(InferenceOptions)] = NOTHING,
    json: Annotated[
        bool,
        typer.Option("--json", help="With --output, print a JSON summary instead of words."),
    ] = False,
    files: Annotated[Given, Group(FilesOptions)] = NOTHING,
    output_column: OutputColumnOption = "embedding",
) -> None:
    """Embed lines of text: JSON lines {"embedding": [...]} out, in order, or one .npy file.

    A line that cannot be read gives {"line": ..., "error": ...}, and the exit code is 1 in the
    end. With --output FOLDER: Parquet or JSON lines in, Parquet out, here or on many machines; the
    same command goes on where it stopped.
    """
    options: dict[str, Any] = {
        "pooling": pooling.value if pooling else None,
        "normalize": normalize,
        "prompt": prompt,
        "dimensions": dimensions,
        "output": dtype.value,
    }
    if is_folder(output):
        from sparsebert.scale import embed_files

        run_files(context, embed_files, **options, **inference, **files)
        return
    file, array = lines_file(context, input), Path(output) if output else None
    from sparsebert.cli.npy_file import NpyFile
    from sparsebert.inference import load
    from sparsebert.inference.embeddings import NUMPY_TYPES, check_dimensions, embedding_width

    started = perf_counter()
    if array is not None:
        NpyFile.check_free(array, force=force)
    loaded = load(model, **chosen(inference, "threads", "max_length", "compute"))
    work = partial(loaded.embed, **options, **chosen(inference, "batch_size", "strict"))
    lines = partial(
        run_lines, file, partial(text_parser, format, pairs=False), work, "embedding lines"
    )
    if array is None:
        lines(partial(write_json_lines, to_json=_to_json)).finish()
        return
    errors: list[dict[str, Any]] = []
    width = loaded.embedding_width(options["pooling"])
    check_dimensions(loaded.name, width, dimensions)
    columns = embedding_width(width, dimensions, dtype.value)
    with NpyFile(array, columns, dtype=NUMPY_TYPES[dtype.value], force=force) as vectors:

        def write(answered: Sequence[Line]) -> None:
            vectors.write([line.result for line in answered])
            errors.extend(
                {"line": line.number, "error": line.error} for line in answered if line.error
            )

        worker = lines(write)
    for each in errors:
        stderr.print(f"line {each['line']}: {each['error']}", markup=False)
    worker.report()
    seconds = perf_counter() - started
    emit(
        {
            "output": str(array),
            "rows": worker.lines,
            "columns": columns,
            "errors": errors,
            "seconds": round(seconds, 3),
        },
        f"Wrote {worker.lines} embeddings of {columns} to {array} in {seconds:.1f} s.",
        as_json=json,
    )
    if worker.failed:
        raise typer.Exit(1)


def _to_json(vector: np.ndarray[Any, Any]) -> str:
    if vector.dtype.kind != "f":
        return '{"embedding": ' + str(vector.tolist()) + "}"
    # Nine digits are enough to give every float32 back, and JSON's own writer would use seventeen.
    return '{"embedding": [' + ", ".join(f"{value:.9g}" for value in vector.tolist()) + "]}"
