"""`sparsebert classify MODEL`: labels for lines of text.

echo "a gripping, moving film" | sparsebert classify packed/
{"label": "positive", "score": 0.9987}
sparsebert classify packed/ --input documents/ --output labels/ --engine ray
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from sparsebert.cli.console import ModelArgument
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
    FormatOption,
    InferenceOptions,
    as_json,
    run_lines,
    text_parser,
    write_json_lines,
)
from sparsebert.cli.options import NOTHING, Given, Group, chosen


def classify(
    context: typer.Context,
    model: ModelArgument,
    input: InputOption = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="From Parquet or JSON lines: write a folder of Parquet.",
        ),
    ] = None,
    force: ForceOption = False,
    format: FormatOption = "auto",
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k",
            min=1,
            help='Also list the best K labels, as "labels".',
            show_default="all for multi-label models, else none",
        ),
    ] = None,
    inference: Annotated[Given, Group(InferenceOptions)] = NOTHING,
    json: Annotated[
        bool,
        typer.Option("--json", help="With --output, print a JSON summary instead of text."),
    ] = False,
    files: Annotated[Given, Group(FilesOptions)] = NOTHING,
    output_column: OutputColumnOption = "label",
) -> None:
    """Classify lines of text, or pairs of texts.

    Prints a JSON line for each, in order: {"label": ..., "score": ...}. The score is a probability,
    or the value that a regression model predicts. A line that cannot be read gives {"line": ...,
    "error": ...}, and the exit code is 1 in the end. With --output FOLDER: Parquet or JSON lines
    in, Parquet out, here or on many machines; the same command resumes where it stopped.
    """
    if output is not None and not is_folder(output):
        raise typer.BadParameter("must be a folder for Parquet files.", param_hint="--output")
    if output is not None:
        from sparsebert.scale import classify_files

        run_files(context, classify_files, top_k=top_k, **inference, **files)
        return
    file = lines_file(context, input)
    from sparsebert.inference import load

    loaded = load(model, **chosen(inference, "threads", "max_length", "compute"))
    loaded.require("classify")
    listed = top_k is not None or loaded.config.problem_type == "multi_label_classification"
    worker = run_lines(
        file,
        partial(text_parser, format, pairs=True),
        partial(
            loaded.classify,
            top_k=top_k if listed else 1,
            **chosen(inference, "batch_size", "strict"),
        ),
        "classifying lines",
        partial(write_json_lines, to_json=partial(_to_json, listed=listed)),
    )
    worker.finish()


def _to_json(found: list[Any], *, listed: bool) -> str:
    return as_json({**found[0], "labels": found} if listed else found[0])
