"""What `embed` and `classify` share for files: Parquet or JSON lines in, a folder of Parquet out.

sparsebert embed packed/ --input docs/ --output embeddings/
sparsebert embed packed/ --input docs/ --output embeddings/ --engine ray
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sparsebert.cli.console import emit, progress_bar
from sparsebert.cli.options import given_options
from sparsebert.options import Options, declarations, option
from sparsebert.scale.parts import ROWS_PER_FILE

if TYPE_CHECKING:
    from sparsebert.scale import FilesResult


Engine = Literal["local", "ray"]
InputOption = Annotated[
    str | None,
    typer.Option(
        "--input",
        "-i",
        metavar="FILE",
        help="File of lines to read. With --output FOLDER: a file, folder, 'pattern*' or URL of "
        "Parquet or JSON lines.",
        show_default="standard input",
    ),
]


@dataclass(frozen=True)
class FilesOptions(Options):
    """The options for --output FOLDER, declared for the command line: the defaults are those of
    `sparsebert.scale.files.run_files`.
    """

    engine: Engine = option(
        "local",
        help="local: in this process. ray: on a Ray cluster, else on all cores of this machine, "
        "with one thread per engine unless --threads is given.",
    )
    text_column: str = option("text", metavar="NAME", help="Column with the texts.")
    pair_column: str | None = option(
        None, metavar="NAME", help="Column with the second text of a pair."
    )
    keep_columns: str | None = option(
        None,
        metavar="NAME,...",
        help="Input columns to keep in the output.",
        shown_default="all",
    )
    rows_per_file: int = option(
        ROWS_PER_FILE,
        least=1,
        help="Rows per output file; a restart repeats only unfinished files.",
    )
    actors: str | None = option(
        None,
        metavar="N|MIN:MAX",
        help="With Ray: number of engines in parallel, or MIN:MAX for a cluster that grows.",
        shown_default="as many as fit",
    )
    address: str | None = option(
        None,
        metavar="ADDRESS",
        help="With Ray: address of the cluster; local starts a new one here.",
        shown_default="RAY_ADDRESS, else one running on this machine, else a new one here",
    )


OutputColumnOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Name of the new column; NAME_error (and NAME_score, NAME_top) are added beside it.",
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Replace the --output file or folder if it exists.")
]


def is_folder(output: str | None) -> bool:
    """Whether --output names a folder of Parquet; a usage error if it looks like another file."""
    suffix = Path(output or "").suffix.lower()
    if suffix in (".csv", ".json", ".jsonl", ".npz", ".parquet", ".tsv", ".txt"):
        raise typer.BadParameter(
            "must be a folder for Parquet files or, for embed, a FILE.npy.",
            param_hint="--output",
        )
    return output is not None and suffix != ".npy"


def lines_file(context: typer.Context, input: str | None) -> Path | None:
    """The file to read lines from, None for standard input.

    A usage error if it is not a file of lines, or if options for folders are used.
    """
    for name in given_options(context, (*declarations(FilesOptions), "output_column")):
        raise typer.BadParameter(
            "only applies with --output FOLDER.", param_hint="--" + name.replace("_", "-")
        )
    if input is None:
        return None
    file = Path(input)
    if not file.exists() or file.is_dir():  # a pipe is allowed
        raise typer.BadParameter(f"'{input}' is not a file.", param_hint="--input")
    if file.suffix.lower() == ".parquet":
        raise typer.BadParameter("Parquet needs --output FOLDER.", param_hint="--input")
    return file


def run_files(context: typer.Context, run: Callable[..., FilesResult], **options: Any) -> None:
    """Process files with ``run``, which gets ``options``, and print the result.

    Model, input and output, --force and --json are read from the context.
    """
    given = context.params
    if given["input"] is None:
        raise typer.BadParameter("is required with --output FOLDER.", param_hint="--input")
    if given_options(context, ("format",)):
        raise typer.BadParameter("does not apply with --output FOLDER.", param_hint="--format")
    if "actors" in options:
        options["actors"] = _parse_actors(options["actors"])
    if "keep_columns" in options:
        options["keep_columns"] = [each for each in options["keep_columns"].split(",") if each]
    with progress_bar() as progress:
        result = run(
            given["model"],
            given["input"],
            given["output"],
            output_column=given["output_column"],
            force=given["force"],
            progress=progress,
            **options,
        )
    emit(result.as_dict(), str(result), as_json=given["json"])


def _parse_actors(text: str) -> int | tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})(?::(\d{1,6}))?", text, re.ASCII)
    if match is None:
        raise typer.BadParameter("must be a number or MIN:MAX.", param_hint="--actors")
    return int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))
