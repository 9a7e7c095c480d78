"""`sparsebert classify MODEL`: labels for lines of text.

echo "a gripping, moving film" | sparsebert classify packed/
{"label": "positive", "score": 0.9987}
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from sparsebert.cli.console import ModelArgument, progress_bar
from sparsebert.cli.lines import (
    BatchSizeOption,
    Format,
    FormatOption,
    InputOption,
    JsonLinesOption,
    LineWorker,
    MaxLengthOption,
    StrictOption,
    ThreadsOption,
    as_json,
    opened,
    text_parser,
    write_json_lines,
)


def classify(
    model: ModelArgument,
    input: InputOption = None,
    format: FormatOption = Format.AUTO,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k",
            min=1,
            help='Also list the best K labels, as "labels".',
            show_default="all of a multi-label model, else none",
        ),
    ] = None,
    batch_size: BatchSizeOption = 32,
    max_length: MaxLengthOption = None,
    strict: StrictOption = False,
    threads: ThreadsOption = None,
    json: JsonLinesOption = False,
) -> None:
    """Label lines of text, or pairs of texts: JSON lines out, in order.

    Each line gives {"label": ..., "score": ...}; the score is a probability, or the predicted
    value of a regression model. A line that cannot be read gives {"line": ..., "error": ...}, and
    the exit code is 1 in the end.
    """
    from sparsebert.inference import load

    loaded = load(model, threads=threads, max_length=max_length)
    loaded.require("classify")
    listed = top_k is not None or loaded.config.problem_type == "multi_label_classification"
    with progress_bar() as progress, opened(input) as stream:
        worker = LineWorker(
            partial(text_parser, format, pairs=True),
            partial(
                loaded.classify,
                top_k=top_k if listed else 1,
                batch_size=batch_size,
                strict=strict,
            ),
            progress,
            "classifying lines",
        )
        for lines in worker.run(stream):
            write_json_lines(lines, partial(_shape, listed=listed))
    worker.report()
    if worker.failed:
        raise typer.Exit(1)


def _shape(found: list[Any], *, listed: bool) -> str:
    return as_json({**found[0], "labels": found} if listed else found[0])
