"""`sparsebert rerank MODEL`: lines of text, sorted by relevance to a query.

sparsebert rerank packed/ --query "who wrote it?" < documents.txt
{"line": 12, "score": 0.98, "text": "It was written by Ada."}
"""

from __future__ import annotations

from typing import Annotated

import typer

from sparsebert.cli.console import ModelArgument, write_json
from sparsebert.cli.lines import (
    InferenceOptions,
    InputOption,
    JsonLinesOption,
    SingleFormat,
    SingleFormatOption,
    as_json,
    opened,
    text_parser,
)
from sparsebert.cli.options import NOTHING, Given, Group, chosen
from sparsebert.errors import InputError


def rerank(
    model: ModelArgument,
    query: Annotated[str, typer.Option("--query", "-q", help="Query to sort the lines by.")],
    input: InputOption = None,
    format: SingleFormatOption = "auto",
    top_k: Annotated[
        int | None,
        typer.Option("--top-k", min=1, help="Print only the best K.", show_default="all"),
    ] = None,
    inference: Annotated[Given, Group(InferenceOptions)] = NOTHING,
    json: JsonLinesOption = False,
) -> None:
    """Sort lines of text by relevance to a query.

    MODEL is a cross-encoder or a multi-vector model (ColBERT). Prints a JSON line for each, best
    first: {"line", "score", "text"}, with the line's number in the input. Blank lines are left out.
    """
    from sparsebert.inference import load

    loaded = load(model, **chosen(inference, "threads", "max_length", "compute"))
    numbers, documents = _read(input, format)
    ranked = loaded.rerank(
        query, documents, top_k=top_k, **chosen(inference, "batch_size", "strict")
    )
    for each in ranked:
        line = numbers[each["index"]]
        write_json(as_json({"line": line, "score": each["score"], "text": each["text"]}))


def _read(input: InputOption, format: SingleFormat) -> tuple[list[int], list[str]]:
    """Line numbers, and the text of each line that has any."""
    with opened(input) as stream:
        raw = stream.read()
    try:
        lines = [line.rstrip("\r") for line in raw.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        number = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"line {number} is not UTF-8 text: byte {error.start} of the input is invalid."
        ) from None
    kept = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not kept:
        raise InputError("there are no lines to sort: provide one document per line.")
    parse = text_parser(format, kept[0][1], pairs=False)
    documents = []
    for number, line in kept:
        try:
            document = parse(line)
            if not isinstance(document, str):
                raise InputError('a document is a single text, without a "text_pair".')
            documents.append(document)
        except InputError as error:
            raise InputError(f"line {number}: {error}") from None
    return [number for number, _ in kept], documents
