"""`sparsebert embed MODEL`: sentence embeddings for lines of text.

sparsebert embed packed/ < sentences.txt > embeddings.jsonl
sparsebert embed packed/ --input sentences.txt --output embeddings.npy
"""

from __future__ import annotations

from enum import Enum
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsebert.cli.console import ModelArgument, emit, progress_bar, stderr
from sparsebert.cli.lines import (
    BatchSizeOption,
    Format,
    FormatOption,
    InputOption,
    LineWorker,
    MaxLengthOption,
    StrictOption,
    ThreadsOption,
    opened,
    text_parser,
    write_json_lines,
)

if TYPE_CHECKING:
    import numpy as np


class PoolingChoice(str, Enum):
    """How token vectors become one."""

    MEAN = "mean"
    CLS = "cls"
    MAX = "max"
    MEAN_SQRT_LEN = "mean_sqrt_len"


def embed(
    model: ModelArgument,
    input: InputOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.npy",
            help="Write one float32 array, a row a line, instead of JSON lines; "
            "the row of a line that failed is NaN.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.npy if it exists.")] = False,
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
    batch_size: BatchSizeOption = 32,
    max_length: MaxLengthOption = None,
    strict: StrictOption = False,
    threads: ThreadsOption = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="With --output, print a JSON summary instead of words."),
    ] = False,
) -> None:
    """Embed lines of text: JSON lines {"embedding": [...]} out, in order, or one .npy file.

    A line that cannot be read gives {"line": ..., "error": ...}, and the exit code is 1 in the
    end.
    """
    if output is not None and output.suffix != ".npy":
        raise typer.BadParameter("--output must end in .npy.")
    from sparsebert.cli.npy_file import NpyFile
    from sparsebert.inference import load

    started = perf_counter()
    if output is not None:
        NpyFile.check_free(output, force=force)
    loaded = load(model, threads=threads, max_length=max_length)
    errors: list[dict[str, Any]] = []
    with progress_bar() as progress, opened(input) as stream:
        worker = LineWorker(
            partial(text_parser, format, pairs=False),
            partial(
                loaded.embed,
                batch_size=batch_size,
                pooling=pooling.value if pooling else None,
                normalize=normalize,
                strict=strict,
            ),
            progress,
            "embedding lines",
        )
        if output is None:
            for lines in worker.run(stream):
                write_json_lines(lines, _shape)
        else:
            with NpyFile(output, loaded.config.hidden_size, force=force) as file:
                for lines in worker.run(stream):
                    file.write([line.result for line in lines])
                    errors += [
                        {"line": line.number, "error": line.error} for line in lines if line.error
                    ]
    for each in errors:
        stderr.print(f"line {each['line']}: {each['error']}", markup=False)
    worker.report()
    if output is not None:
        seconds = perf_counter() - started
        emit(
            {
                "output": str(output),
                "rows": worker.lines,
                "columns": loaded.config.hidden_size,
                "errors": errors,
                "seconds": round(seconds, 3),
            },
            f"Wrote {worker.lines} embeddings of {loaded.config.hidden_size} to {output} in "
            f"{seconds:.1f} s.",
            as_json=json,
        )
    if worker.failed:
        raise typer.Exit(1)


def _shape(vector: np.ndarray[Any, Any]) -> str:
    # Nine digits are enough to give every float32 back, and JSON's own writer would use seventeen.
    return '{"embedding": [' + ", ".join(f"{value:.9g}" for value in vector.tolist()) + "]}"
