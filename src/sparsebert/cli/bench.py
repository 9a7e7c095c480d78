"""`sparsebert bench`: latency of our engine beside its peers."""

from __future__ import annotations

import json as json_text
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sparsebert.cli.console import JsonOption, progress_bar, stderr, usage_error
from sparsebert.cli.options import given_options
from sparsebert.progress import Progress

if TYPE_CHECKING:
    from sparsebert.patterns import Pattern


Output = Literal["md", "csv", "json"]  # named as in llama-bench


def bench(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Model folder, or id on the Hugging Face hub."),
    ] = None,
    random: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Instead of MODEL: random weights, pruned to 1:2, in the shape of bert-tiny, "
            "minilm, bert-base, bert-large, roberta-base, distilbert, electra-small, mpnet-base, "
            "deberta-v3-base or modernbert-base.",
        ),
    ] = None,
    shared_rows: Annotated[
        int,
        typer.Option(
            metavar="ROWS",
            help="Make every ROWS adjacent outputs of the --random model keep the same inputs.",
            show_default="1: not shared",
        ),
    ] = 1,
    shapes: Annotated[
        str | None,
        typer.Option(
            metavar="BxT,...",
            help="Shapes to measure, as batch x tokens, separated by commas.",
            show_default="1x16,1x128,8x128,1x384,32x128; none with --texts",
        ),
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Measure real texts: a .txt file with one text per line, or a table (parquet, "
            "csv, tsv, json, jsonl) with a column text or sentence, or two columns of pairs, which "
            "classifiers and models that answer questions read together.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Texts per batch of --texts.")] = 32,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of the tokenizer for --texts.",
            show_default="the model's own",
        ),
    ] = None,
    engines: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Engines to measure, separated by commas: sparsebert-int8, sparsebert-fp32, "
            "sparsebert-fp16, sparsebert-bf16, sparsebert-dense-int8, sparsebert-dense-fp32, "
            "sparsebert-dense-bf16, onnxruntime-int8, onnxruntime-fp32, openvino-int8, "
            "openvino-fp32, openvino-bf16, ctranslate2-int8, ctranslate2-fp32, torch or "
            "torch-compile.",
            show_default="sparsebert-int8, sparsebert-fp32 and every usual peer that is installed",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads per engine.", show_default="all cores"),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Number of interleaved rounds.")] = 15,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Keep the models exported for peers here, for next time."
        ),
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="Format of the result.")] = "md",
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Also plot the result to this file.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure latency, load time and memory beside other engines.

    Each engine runs in its own process, and their rounds are interleaved. Reported are medians and
    quartiles, and how many times as long the fastest peer takes as sparsebert: the median over
    rounds of the ratio of their times in a round. Texts are tokenised once beforehand; sparsebert
    gets them as they come, every peer sorted by length and padded to the longest of the batch.
    """
    if (model is None) == (random is None):
        raise typer.BadParameter("use either MODEL or --random SIZE.")
    if shared_rows != 1 and random is None:
        raise typer.BadParameter("only applies with --random.", param_hint="--shared-rows")
    for name in given_options(context, ("batch", "tokenizer")) if texts is None else ():
        raise typer.BadParameter("only applies with --texts.", param_hint=f"--{name}")
    if json and output == "csv":
        raise typer.BadParameter("cannot be used with --output csv.", param_hint="--json")
    from sparsebert import bench as feature
    from sparsebert.bench.plot import save_plot
    from sparsebert.patterns import Pattern
    from sparsebert.tasks.texts import read_texts

    with usage_error():
        wanted_shapes = [] if texts else list(feature.DEFAULT_SHAPES)
        if shapes is not None:
            wanted_shapes = feature.parse_shapes(shapes)
        wanted_engines = feature.parse_engines(engines) if engines is not None else None
        pattern = Pattern.parse("1:2", shared_rows)
    if random is not None and random not in feature.RANDOM_MODELS:
        names = ", ".join(feature.RANDOM_MODELS)
        raise typer.BadParameter(f"'{random}' is not one of {names}.", param_hint="--random")

    with (
        tempfile.TemporaryDirectory(prefix="sparsebert-") as temporary,
        progress_bar() as progress,
    ):
        result = feature.run_bench(
            model or _random_sparse(str(random), pattern, Path(temporary), progress),
            shapes=wanted_shapes,
            texts=read_texts(texts) if texts else (),
            batch=batch,
            tokenizer=tokenizer,
            engines=wanted_engines,
            threads=threads,
            rounds=rounds,
            cache=cache,
            progress=progress,
        )
    if json or output == "json":
        text = json_text.dumps(result.as_dict(), allow_nan=False) + "\n"
    elif output == "csv":
        text = feature.as_csv(result)
    else:
        text = feature.as_markdown(result) + "\n"
    sys.stdout.write(text)
    sys.stdout.flush()
    if not result.rows:  # the result says why each engine could not be measured
        raise typer.Exit(1)
    if plot is not None:
        save_plot(result, plot)
        stderr.print(f"plot: {plot}", markup=False)


def _random_sparse(name: str, pattern: Pattern, workspace: Path, progress: Progress) -> Path:
    from sparsebert.bench import write_random_model
    from sparsebert.pruning import prune

    progress(f"writing a random {name}", 0, 0)
    write_random_model(name, workspace / "dense")
    prune(workspace / "dense", workspace / "sparse", pattern=pattern, progress=progress)
    return workspace / "sparse"
