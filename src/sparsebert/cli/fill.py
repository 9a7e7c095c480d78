"""`sparsebert fill MODEL`: the likeliest tokens for a mask token.

echo "Paris is the [MASK] of France." | sparsebert fill packed/
{"tokens": [{"token": "capital", "score": 0.98}, ...]}
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from sparsebert.cli.console import ModelArgument
from sparsebert.cli.lines import (
    FormatOption,
    InferenceOptions,
    InputOption,
    JsonLinesOption,
    as_json,
    run_lines,
    text_parser,
    write_json_lines,
)
from sparsebert.cli.options import NOTHING, Given, Group, chosen


def fill(
    model: ModelArgument,
    input: InputOption = None,
    format: FormatOption = "auto",
    top_k: Annotated[
        int, typer.Option("--top-k", min=1, help="Number of tokens to give, best first.")
    ] = 5,
    inference: Annotated[Given, Group(InferenceOptions)] = NOTHING,
    json: JsonLinesOption = False,
) -> None:
    """Fill in the mask token in each line of text.

    MODEL is a masked-LM model. Prints a JSON line for each, in order: {"tokens": [{"token",
    "score"}, ...]}. A line that cannot be read, or does not have exactly one mask token, gives
    {"line": ..., "error": ...}, and the exit code is 1 in the end.
    """
    from sparsebert.inference import load

    loaded = load(model, **chosen(inference, "threads", "max_length", "compute"))
    loaded.require("fill")
    run_lines(
        input,
        partial(text_parser, format, pairs=False),
        partial(loaded.fill, top_k=top_k, **chosen(inference, "batch_size", "strict")),
        "filling lines",
        partial(write_json_lines, to_json=lambda found: as_json({"tokens": found})),
    ).finish()
