"""`sparsebert answer MODEL`: answers to questions, out of a context.

sparsebert answer packed/ --question "Who wrote it?" --context "It was written by Ada."
{"text": "Ada", "start": 18, "end": 21, "score": 0.97}
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from sparsebert.cli.console import ModelArgument
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
        int | None,
        typer.Option(
            "--doc-stride",
            min=1,
            help="Tokens that windows of a long context have in common.",
            show_default="128, at most a third of a window",
        ),
    ] = None,
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
    null_threshold: Annotated[
        float | None,
        typer.Option(
            "--null-threshold",
            help="Say that there is no answer (an empty text) where that is likelier than the best "
            "one by more than this, in logits; inf never does.",
            show_default="that of a training on SQuAD v2; without such a training never",
        ),
    ] = None,
    inference: Annotated[
        Given, Group(InferenceOptions, ("batch_size", "threads", "compute"))
    ] = NOTHING,
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
        typer.echo(_to_json(work((question, context))))
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
