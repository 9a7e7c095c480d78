"""`sparsebert answer MODEL`: answers to questions, from a context.

sparsebert answer packed/ --question "Who wrote it?" --context "It was written by Ada."
{"text": "Ada", "start": 18, "end": 21, "score": 0.97}
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from sparsebert.cli.console import ModelArgument, write_json
from sparsebert.cli.lines import (
    InferenceOptions,
    InputOption,
    JsonLinesOption,
    Parse,
    as_json,
    parse_json_object,
    run_lines,
    write_json_lines,
)
from sparsebert.cli.options import NOTHING, Given, Group, chosen


def answer(
    model: ModelArgument,
    question: Annotated[
        str | None,
        typer.Option("--question", "-q", help="Question to answer, instead of lines of input."),
    ] = None,
    context: Annotated[
        str | None, typer.Option("--context", "-c", help="Text that holds the answer.")
    ] = None,
    input: InputOption = None,
    top_k: Annotated[
        int,
        typer.Option(
            "--top-k", min=1, help='If above 1, also list the best K answers, as "answers".'
        ),
    ] = 1,
    doc_stride: Annotated[
        int | None,
        typer.Option(
            "--doc-stride",
            min=1,
            help="Tokens by which the windows of a long context overlap.",
            show_default="128, at most a third of a window",
        ),
    ] = None,
    max_answer_length: Annotated[
        int, typer.Option("--max-answer-length", min=1, help="Maximum tokens of an answer.")
    ] = 30,
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length",
            min=1,
            help="Maximum tokens of a question with a window of its context.",
            show_default="that of the training, else 384",
        ),
    ] = None,
    null_threshold: Annotated[
        float | None,
        typer.Option(
            "--null-threshold",
            help="Give an empty text (no answer) if that is likelier than the best answer by more "
            "than this, in logits; inf never does.",
            show_default="that of a training on SQuAD v2; for other models never",
        ),
    ] = None,
    inference: Annotated[
        Given, Group(InferenceOptions, ("batch_size", "threads", "compute"))
    ] = NOTHING,
    json: JsonLinesOption = False,
) -> None:
    """Answer questions with a span of their context.

    Lines of input are {"question": ..., "context": ...}. Prints a JSON line for each, in order:
    {"text": ..., "start": ..., "end": ..., "score": ...}, with character positions in the context.
    A line that cannot be read gives {"line": ..., "error": ...}, and the exit code is 1 in the end.
    """
    if (question is None) != (context is None):
        raise typer.BadParameter("--question and --context must be used together.")
    if question is not None and input is not None:
        raise typer.BadParameter("use either --question and --context, or --input.")
    from sparsebert.inference import load

    loaded = load(model, max_length=max_length, **chosen(inference, "threads", "compute"))
    loaded.require("answer")

    def work(pairs: Any) -> Any:
        questions, contexts = zip(*pairs, strict=True) if isinstance(pairs, list) else pairs
        return loaded.answer(
            questions,
            contexts,
            top_k=top_k,
            max_length=max_length,
            doc_stride=doc_stride,
            max_answer_length=max_answer_length,
            null_threshold=null_threshold,
            **chosen(inference, "batch_size"),
        )

    if question is not None:
        write_json(_to_json(work((question, context))))
        return
    write = partial(write_json_lines, to_json=_to_json)
    run_lines(input, _parser, work, "answering lines", write).finish()


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


def _to_json(found: Any) -> str:
    return as_json({**found[0], "answers": found} if isinstance(found, list) else found)
