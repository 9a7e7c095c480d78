"""`sparsebert tag MODEL`: entities in lines of text.

echo "Ada Lovelace lived in London." | sparsebert tag packed/
{"entities": [{"text": "Ada Lovelace", "label": "PER", "score": 0.99, "start": 0, "end": 12}, ...]}
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import typer

from sparsebert.cli.console import ModelArgument
from sparsebert.cli.lines import (
    InferenceOptions,
    InputOption,
    JsonLinesOption,
    SingleFormatOption,
    as_json,
    run_lines,
    text_parser,
    write_json_lines,
)
from sparsebert.cli.options import NOTHING, Given, Group, chosen

# "none" and the library's own, which cannot be imported here: it comes with numpy
Aggregation = Literal["none", "simple", "first", "average", "max"]


def tag(
    model: ModelArgument,
    input: InputOption = None,
    format: SingleFormatOption = "auto",
    aggregation: Annotated[
        Aggregation,
        typer.Option(
            "--aggregation",
            help="How to group tokens into entities, as in transformers: neighbours of one type "
            "(simple), after giving each word one label (first, average, max); none: each token "
            "by itself.",
        ),
    ] = "simple",
    inference: Annotated[Given, Group(InferenceOptions)] = NOTHING,
    json: JsonLinesOption = False,
) -> None:
    """Find entities in lines of text.

    MODEL is a token-classification model. Prints a JSON line for each, in order: {"entities":
    [{"text", "label", "score", "start", "end"}, ...]}, with character positions in the line, or
    "tokens" instead with --aggregation none. A line that cannot be read gives {"line": ...,
    "error": ...}, and the exit code is 1 in the end.
    """
    from sparsebert.inference import load

    loaded = load(model, **chosen(inference, "threads", "max_length", "compute"))
    loaded.require("tag")
    joined = aggregation != "none"
    options: dict[str, Any] = {"aggregation": aggregation if joined else None}
    run_lines(
        input,
        partial(text_parser, format, pairs=False),
        partial(loaded.tag, **options, **chosen(inference, "batch_size", "strict")),
        "tagging lines",
        partial(
            write_json_lines,
            to_json=lambda found: as_json({"entities" if joined else "tokens": found}),
        ),
    ).finish()
