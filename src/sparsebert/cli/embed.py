"""`sparsebert embed MODEL`: sentence embeddings for lines of text.

sparsebert embed packed/ < sentences.txt > embeddings.jsonl
sparsebert embed packed/ --input sentences.txt --output embeddings.npy
sparsebert embed packed/ --input documents/ --output embeddings/ --engine ray
"""

from __future__ import annotations

from enum import Enum
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsebert.cli.console import ModelArgument, emit, progress_bar, stderr
from sparsebert.cli.files import (
    ActorsOption,
    AddressOption,
    Engine,
    EngineOption,
    ForceOption,
    InputOption,
    KeepColumnsOption,
    OutputColumnOption,
    PairColumnOption,
    RowsPerFileOption,
    TextColumnOption,
    is_folder,
    lines_file,
    run_files,
)
from sparsebert.cli.lines import (
    BatchSizeOption,
    Format,
    FormatOption,
    LineWorker,
    MaxLengthOption,
    StrictOption,
    ThreadsOption,
    opened,
    text_parser,
    write_json_lines,
)
from sparsebert.scale.parts import ROWS_PER_FILE

if TYPE_CHECKING:
    import numpy as np


class PoolingChoice(str, Enum):
    """How token vectors become one."""

    MEAN = "mean"
    CLS = "cls"
    MAX = "max"
    MEAN_SQRT_LEN = "mean_sqrt_len"


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
            help="Write one float32 array, a row a line, instead of JSON lines (the row of a line "
            "that failed is NaN); or, for Parquet and JSON lines, a folder of Parquet.",
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
    batch_size: BatchSizeOption = 32,
    max_length: MaxLengthOption = None,
    strict: StrictOption = False,
    threads: ThreadsOption = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="With --output, print a JSON summary instead of words."),
    ] = False,
    engine: EngineOption = Engine.LOCAL,
    text_column: TextColumnOption = "text",
    pair_column: PairColumnOption = None,
    keep_columns: KeepColumnsOption = None,
    output_column: OutputColumnOption = "embedding",
    rows_per_file: RowsPerFileOption = ROWS_PER_FILE,
    actors: ActorsOption = None,
    address: AddressOption = None,
) -> None:
    """Embed lines of text: JSON lines {"embedding": [...]} out, in order, or one .npy file.

    A line that cannot be read gives {"line": ..., "error": ...}, and the exit code is 1 in the
    end. With --output FOLDER: Parquet or JSON lines in, Parquet out, here or on many machines; the
    same command goes on where it stopped.
    """
    mode: Any = pooling.value if pooling else None
    if is_folder(output):
        from sparsebert.scale import embed_files

        run_files(context, embed_files, pooling=mode, normalize=normalize, prompt=prompt)
        return
    file, array = lines_file(context, input), Path(output) if output else None
    from sparsebert.cli.npy_file import NpyFile
    from sparsebert.inference import load

    started = perf_counter()
    if array is not None:
        NpyFile.check_free(array, force=force)
    loaded = load(model, threads=threads, max_length=max_length)
    errors: list[dict[str, Any]] = []
    with progress_bar() as progress, opened(file) as stream:
        worker = LineWorker(
            partial(text_parser, format, pairs=False),
            partial(
                loaded.embed,
                batch_size=batch_size,
                pooling=mode,
                normalize=normalize,
                prompt=prompt,
                strict=strict,
            ),
            progress,
            "embedding lines",
        )
        if array is None:
            for lines in worker.run(stream):
                write_json_lines(lines, _shape)
        else:
            with NpyFile(array, loaded.config.hidden_size, force=force) as rows:
                for lines in worker.run(stream):
                    rows.write([line.result for line in lines])
                    errors += [
                        {"line": line.number, "error": line.error} for line in lines if line.error
                    ]
    for each in errors:
        stderr.print(f"line {each['line']}: {each['error']}", markup=False)
    worker.report()
    if array is not None:
        seconds = perf_counter() - started
        emit(
            {
                "output": str(array),
                "rows": worker.lines,
                "columns": loaded.config.hidden_size,
                "errors": errors,
                "seconds": round(seconds, 3),
            },
            f"Wrote {worker.lines} embeddings of {loaded.config.hidden_size} to {array} in "
            f"{seconds:.1f} s.",
            as_json=json,
        )
    if worker.failed:
        raise typer.Exit(1)


def _shape(vector: np.ndarray[Any, Any]) -> str:
    # Nine digits are enough to give every float32 back, and JSON's own writer would use seventeen.
    return '{"embedding": [' + ", ".join(f"{value:.9g}" for value in vector.tolist()) + "]}"
