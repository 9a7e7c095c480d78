"""`sparsebert embed MODEL`: embeddings for lines of text, dense, sparse or one vector per token.

sparsebert embed packed/ < sentences.txt > embeddings.jsonl
sparsebert embed colbert/ --kind tokens --task query < questions.txt
sparsebert embed packed/ --input sentences.txt --output embeddings.npy
sparsebert embed packed/ --input documents/ --output embeddings/ --engine ray
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sparsebert.cli.console import ModelArgument, emit, stderr
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
    Line,
    run_lines,
    text_parser,
    write_json_lines,
)
from sparsebert.cli.options import NOTHING, Given, Group, chosen

if TYPE_CHECKING:
    import numpy as np

    from sparsebert.inference import Model
    from sparsebert.inference.answer_each import Work
    from sparsebert.inference.embedding_model import HybridEmbedding
    from sparsebert.inference.sparse import SparseEmbedding

# The library's own types cannot be imported here: they come with numpy.
Kind = Literal["dense", "sparse", "tokens", "hybrid"]
Task = Literal["query", "document"]
Pooling = Literal["mean", "cls", "max", "mean_sqrt_len", "weightedmean", "lasttoken"]
NumberType = Literal["float32", "float16", "int8", "binary"]


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
            help="Write one array, with a row per line, instead of JSON lines (rows of failed "
            "lines are NaN, or 0); or, from Parquet or JSON lines, a folder of Parquet.",
        ),
    ] = None,
    force: ForceOption = False,
    format: FormatOption = "auto",
    kind: Annotated[
        Kind | None,
        typer.Option(
            "--kind",
            help="dense: one vector per text. sparse: weights of vocabulary tokens (SPLADE). "
            "tokens: one vector per token (ColBERT). hybrid: all three from one pass (BGE-M3).",
            show_default="what the model is made for; dense with --output",
        ),
    ] = None,
    task: Annotated[
        Task | None,
        typer.Option(
            "--task",
            help="Role of the texts, for multi-vector models (ColBERT) and for sparse ones with "
            "prompts or routes for queries.",
            show_default="document; for sparse models neither",
        ),
    ] = None,
    pooling: Annotated[
        Pooling | None,
        typer.Option(
            "--pooling",
            help="How to pool the token vectors into one.",
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
            help='Text to put before each text; "" for none.',
            show_default="the model's own, else none",
        ),
    ] = None,
    prompt_name: Annotated[
        str | None,
        typer.Option(
            "--prompt-name",
            metavar="NAME",
            help="Prompt of the model's folder to put before each text, such as query.",
        ),
    ] = None,
    dimensions: Annotated[
        int | None,
        typer.Option(
            "--dimensions",
            min=1,
            help="Truncate embeddings to this many numbers (for models trained for it, "
            '"Matryoshka").',
            show_default="all",
        ),
    ] = None,
    dtype: Annotated[
        NumberType,
        typer.Option(
            "--dtype",
            help="Type of the numbers. int8: scaled so that the largest is 127, which leaves "
            "cosines as they are; binary: one bit per number, eight to a byte.",
        ),
    ] = "float32",
    inference: Annotated[Given, Group(InferenceOptions)] = NOTHING,
    json: Annotated[
        bool,
        typer.Option("--json", help="With --output, print a JSON summary instead of text."),
    ] = False,
    files: Annotated[Given, Group(FilesOptions)] = NOTHING,
    output_column: OutputColumnOption = "embedding",
) -> None:
    """Embed lines of text.

    Prints a JSON line for each, in order: {"embedding": [...]}; of sparse embeddings {"indices":
    [...], "values": [...]}, of token vectors {"embeddings": [[...], ...]}, of hybrid ones
    {"embedding", "sparse", "embeddings"}. A line that cannot be read gives {"line": ..., "error":
    ...}, and the exit code is 1 in the end. With --output FILE.npy it writes one array. With
    --output FOLDER: Parquet or JSON lines in, Parquet out, here or on many machines; the same
    command resumes where it stopped.
    """
    options: dict[str, Any] = {
        "pooling": pooling,
        "normalize": normalize,
        "prompt": prompt,
        "prompt_name": prompt_name,
        "dimensions": dimensions,
        "output": dtype,
    }
    if output is not None and kind not in (None, "dense"):
        raise typer.BadParameter(
            f"takes only dense embeddings: omit it to print --kind {kind} as JSON lines.",
            param_hint="--output",
        )
    if output is not None:
        _check_options("dense", task, options)
    if is_folder(output):
        from sparsebert.scale import embed_files

        run_files(context, embed_files, **options, **inference, **files)
        return
    file, array = lines_file(context, input), Path(output) if output else None
    from sparsebert.cli.npy_file import NpyFile
    from sparsebert.inference import load
    from sparsebert.inference.embeddings import NUMPY_TYPES, embedding_width

    started = perf_counter()
    if array is not None:
        NpyFile.check_free(array, force=force)
    loaded = load(model, **chosen(inference, "threads", "max_length", "compute"))
    if kind is None and array is None:
        kind = loaded.embedding_kind
    _check_options(kind or "dense", task, options)
    work = _work(loaded, kind, task, options, chosen(inference, "batch_size", "strict"))
    work([])  # reports once an option that would make every line fail
    lines = partial(
        run_lines, file, partial(text_parser, format, pairs=False), work, "embedding lines"
    )
    if array is None:
        lines(partial(write_json_lines, to_json=_TO_JSON[kind or "dense"])).finish()
        return
    errors: list[dict[str, Any]] = []
    columns = embedding_width(loaded.embedding_width(options["pooling"]), dimensions, dtype)
    with NpyFile(array, columns, dtype=NUMPY_TYPES[dtype], force=force) as vectors:

        def write(answered: Sequence[Line]) -> None:
            vectors.write([line.result for line in answered])
            errors.extend(
                {"line": line.number, "error": line.error} for line in answered if line.error
            )

        worker = lines(write)
    for each in errors:
        stderr.print(f"line {each['line']}: {each['error']}", markup=False)
    worker.report()
    seconds = perf_counter() - started
    emit(
        {
            "output": str(array),
            "rows": worker.lines,
            "columns": columns,
            "errors": errors,
            "seconds": round(seconds, 3),
        },
        f"Wrote {worker.lines} embeddings of length {columns} to {array} in {seconds:.1f} s.",
        as_json=json,
    )
    if worker.failed:
        raise typer.Exit(1)


def _check_options(kind: Kind, task: Task | None, options: Given) -> None:
    """typer.BadParameter for options of another kind of embedding."""
    if task is not None and kind not in ("sparse", "tokens"):
        raise typer.BadParameter(
            f"only applies to --kind sparse and tokens, not to {kind}.",
            param_hint="--task",
        )
    for name in ("pooling", "normalize", "dimensions", "output"):
        if kind != "dense" and options[name] not in (None, "float32"):
            raise typer.BadParameter(
                f"only applies to --kind dense, not to {kind}.",
                param_hint=f"--{'dtype' if name == 'output' else name}",
            )


def _work(
    model: Model, kind: Kind | None, task: Task | None, options: Given, inference: Given
) -> Work:
    """The method that makes embeddings of this kind."""
    prompts = {name: options[name] for name in ("prompt", "prompt_name")}
    if kind == "tokens":
        return partial(model.embed_tokens, task=task or "document", **prompts, **inference)
    if kind == "sparse":
        return partial(model.embed_sparse, task=task, **prompts, **inference)
    if kind == "hybrid":
        return partial(model.embed_hybrid, **prompts, **inference)
    return partial(model.embed, **options, **inference)


def _numbers(vector: np.ndarray[Any, Any]) -> str:
    if vector.dtype.kind != "f":
        return str(vector.tolist())
    # Nine digits are enough to restore every float32; the json module would write seventeen.
    return "[" + ", ".join(f"{value:.9g}" for value in vector.tolist()) + "]"


def _dense(vector: np.ndarray[Any, Any]) -> str:
    return '{"embedding": ' + _numbers(vector) + "}"


def _sparse(found: SparseEmbedding) -> str:
    values = _numbers(found.values)
    return '{"indices": ' + _numbers(found.indices) + ', "values": ' + values + "}"


def _tokens(vectors: np.ndarray[Any, Any]) -> str:
    return '{"embeddings": [' + ", ".join(map(_numbers, vectors)) + "]}"


def _hybrid(found: HybridEmbedding) -> str:
    sparse = ', "sparse": ' + _sparse(found.sparse) + ", "
    return _dense(found.dense)[:-1] + sparse + _tokens(found.tokens)[1:]


_TO_JSON: dict[Kind, Callable[[Any], str]] = {
    "dense": _dense,
    "sparse": _sparse,
    "tokens": _tokens,
    "hybrid": _hybrid,
}
