"""`sparsebert answer MODEL`: answers to questions, out of a context.

sparsebert answer packed/ --question "Who wrote it?" --context "It was written by Ada."
{"text": "Ada", "start": 18, "end": 21, "score": 0.97}
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sparsebert.cli.console import ModelArgument, progress_bar
from sparsebert.cli.lines import (
    BatchSizeOption,
    InputOption,
    JsonLinesOption,
    LineWorker,
    Parse,
    ThreadsOption,
    as_json,
    opened,
    parse_json_object,
    write_json_lines,
)


def answer(
    model: ModelArgument,
    question: Annotated[
        str | None, typer.Option("--question", "-q", help="Answer this one question.")
    ] = None,
    context: Annotated[
        str | None, typer.Option("--context", "-c", help="The text that holds its answer.")
    ] = None,
    input: InputOption = None,
    top_k: Annotated[
        int, typer.Option("--top-k", min=1, help='With K above 1 list them, as "answers".')
    ] = 1,
    doc_stride: Annotated[
        int,
        typer.Option(
            "--doc-stride", min=1, help="Tokens that windows of a long context have in common."
        ),
    ] = 128,
    max_answer_length: Annotated[
        int, typer.Option("--max-answer-length", min=1, help="Tokens of an answer at most.")
    ] = 30,
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length",
            min=1,
            help="Tokens of a question with a window of its context.",
            show_default="384",
        ),
    ] = None,
    batch_size: BatchSizeOption = 32,
    threads: ThreadsOption = None,
    json: JsonLinesOption = False,
) -> None:
    """Answer questions by a stretch of their context: JSON lines out, in order.

    Lines of input are {"question": ..., "context": ...}. Each gives {"text": ..., "start": ...,
    "end": ..., "score": ...} with the characters of the context. A line that cannot be read gives
    {"line": ..., "error": ...}, and the exit code is 1 in the end.
    """
    if (question is None) != (context is None):
        raise typer.BadParameter("--question and --context go together.")
    if question is not None and input is not None:
        raise typer.BadParameter("give either --question and --context, or --input.")
    from sparsebert.inference import load

    loaded = load(model, threads=threads, max_length=max_length)
    loaded.require("answer")

    def work(given: Any) -> Any:
        asked, read = zip(*given, strict=True) if isinstance(given, list) else given
        return loaded.answer(
            asked,
            read,
            top_k=top_k,
            max_length=max_length,
            doc_stride=doc_stride,
            max_answer_length=max_answer_length,
            batch_size=batch_size,
        )

    if question is not None:
        typer.echo(_shape(work((question, context))))
        return
    with progress_bar() as progress, opened(input) as stream:
        worker = LineWorker(_parser, work, progress, "answering lines")
        for lines in worker.run(stream):
            write_json_lines(lines, _shape)
    worker.report()
    if worker.failed:
        raise typer.Exit(1)


def _parser(_first: str) -> Parse:
    return _parse


def _parse(line: str) -> tuple[str, str]:
    from sparsebert.errors import InputError
    from sparsebert.inference.texts import as_string

    found = parse_json_object(line)
    for name in ("question", "context"):
        if name not in found:
            raise InputError(f'the line\'s JSON has no "{name}".')
    return as_string(found["question"], '"question"'), as_string(found["context"], '"context"')


def _shape(found: Any) -> str:
    return as_json({**found[0], "answers": found} if isinstance(found, list) else found)
