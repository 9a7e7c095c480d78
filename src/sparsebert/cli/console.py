"""What commands share: options, progress bars, printing of results.

Results go to standard output (text, or JSON with --json); progress and errors go to
standard error, so that a pipe only ever sees results.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from sparsebert.errors import SparsebertError, printable
from sparsebert.progress import Progress
from sparsebert.training.distributed import is_main

if TYPE_CHECKING:
    from sparsebert.evaluation.seeds import SeedExecutor

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Model folder, or id on the Hugging Face hub.")
]
OutArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="Folder to write; it must not exist yet.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

_SECONDS_BETWEEN_LINES = 5.0


class _Terminal(Console):
    """A console that escapes control characters in what it prints, so that none takes effect."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(
            *(printable(each, "\n\t") if isinstance(each, str) else each for each in objects),
            **options,
        )


stdout = _Terminal(highlight=False, soft_wrap=True)
stderr = _Terminal(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def usage_error(option: str | None = None) -> Iterator[None]:
    """Turn the errors of reading ``option``, or several options, into wrong usage."""
    try:
        yield
    except SparsebertError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def read_seeds(text: str) -> tuple[int, ...]:
    """The seeds that --seeds names; a usage error if it cannot be parsed."""
    from sparsebert.checkpoint.seeds import parse_seeds

    with usage_error("--seeds"):
        return parse_seeds(text)


def seed_executor(engine: str, threads: int | None) -> SeedExecutor:
    """What runs the seeds: a Ray cluster if ``engine`` is "ray", else this process."""
    if engine == "ray":
        from sparsebert.scale.ray_cluster import ray_executor

        return ray_executor(threads=threads)
    from sparsebert.evaluation.seeds import sequential

    return sequential


TASK_HELP = (
    "mnli, qqp, qnli, sst2, cola, stsb, mrpc, rte, squad or squad_v2; for your own data custom "
    "(text, or text1 and text2, and label) or ner (words with one label each: CoNLL files, or "
    "tokens and ner_tags); for embedding models pairs (text1, text2 and score) or retrieval "
    "(query, document and optionally negative)."
)


def check_task(name: str) -> None:
    """A usage error if --task is not a known task."""
    from sparsebert.errors import DataError
    from sparsebert.tasks.table import TASK_NAMES, task_name

    try:
        task_name(name)
    except DataError:
        listed = ", ".join(TASK_NAMES)
        raise typer.BadParameter(f"choose from {listed}.", param_hint="--task") from None


def emit(result: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print a command's result: ``result`` as one line of JSON, or ``text`` for people.

    If several processes train together, only the main one prints.
    """
    if not is_main():
        return
    if as_json:
        write_json(json.dumps(result, ensure_ascii=False, allow_nan=False))
    else:
        stdout.print(text, markup=False)
    sys.stdout.flush()


def write_json(text: str) -> None:
    """Write lines of JSON to standard output, as UTF-8 whatever the terminal's encoding."""
    sys.stdout.flush()
    # Half of a surrogate pair, as in a path that is not UTF-8, becomes an escape: still valid JSON.
    encoded = (text + "\n").encode("utf-8", "backslashreplace")
    if (binary := getattr(sys.stdout, "buffer", None)) is not None:
        binary.write(encoded)
        binary.flush()
    else:  # a caller's io.StringIO
        sys.stdout.write(encoded.decode())


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar for each label on a terminal; an occasional plain line elsewhere."""
    if not stderr.is_terminal:
        yield _plain_lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=stderr, redirect_stdout=False) as bars:
        tasks: dict[str, Any] = {}

        def draw(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total or None)
            bars.update(tasks[label], completed=done, total=total or None)

        yield draw


def _plain_lines() -> Progress:
    """A line when a stage begins and ends; in between, one per tenth at most, seconds apart."""
    tenths: dict[str, int] = {}
    written: dict[str, float] = {}

    def write(label: str, done: int, total: int) -> None:
        now = time.monotonic()
        tenth = 10 * done // total if total else 0
        fresh = label not in tenths
        finished = bool(total) and done >= total and tenths.get(label, 0) < 10
        early = not fresh and now - written[label] < _SECONDS_BETWEEN_LINES
        if not (fresh or finished) and (early or tenths[label] == tenth):
            return
        tenths[label], written[label] = tenth, now
        stderr.print(f"{label}: {done}/{total}" if total else label, markup=False)

    return write
