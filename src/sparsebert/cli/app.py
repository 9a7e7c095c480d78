"""The `sparsebert` command: its verbs, and what happens when one fails.

    exit 0   done
    exit 1   it failed: one `error:` line for what the user can mend, a traceback for our own faults
    exit 2   wrong use
    exit 130 interrupted

A verb's module imports nothing heavy, so that `--help` answers at once and never imports torch.
"""

from __future__ import annotations

import os
import platform
import sys
import traceback
import warnings
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from sparsebert import __version__
from sparsebert.cli.answer import answer
from sparsebert.cli.bench import bench
from sparsebert.cli.classify import classify
from sparsebert.cli.console import stderr
from sparsebert.cli.convert import convert, export, pack, unpack
from sparsebert.cli.demo import demo
from sparsebert.cli.doctor import doctor
from sparsebert.cli.embed import embed
from sparsebert.cli.evaluate import evaluate
from sparsebert.cli.finetune import finetune
from sparsebert.cli.options import expanded
from sparsebert.cli.prune import inspect, prune
from sparsebert.cli.push import push
from sparsebert.cli.serve import serve
from sparsebert.cli.table import table
from sparsebert.errors import SparsebertError

# In the order of the way through, which is the order --help shows.
VERBS = (
    convert,
    prune,
    finetune,
    evaluate,
    table,
    pack,
    unpack,
    push,
    export,
    inspect,
    doctor,
    bench,
    embed,
    classify,
    answer,
    serve,
    demo,
)


class _Verbs(TyperGroup):
    """Turns what a verb raises into a line for its user and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SparsebertError as error:
            _say("error", str(error))
            raise typer.Exit(1) from error
        except KeyboardInterrupt as stop:
            _say("interrupted", "stopped at your request; finished folders are whole.")
            raise typer.Exit(130) from stop
        except BrokenPipeError as closed:
            # The reader of our output went away (| head). The interpreter would complain once more
            # when it flushes standard output at exit: give it somewhere to flush to.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from closed


app = typer.Typer(
    cls=_Verbs,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _verb in VERBS:
    app.command(name=_verb.__name__)(expanded(_verb))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sparsebert {__version__}")
        raise typer.Exit()


@app.callback()
def sparsebert(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Halve your BERT: prune to 1:2 sparsity, fine-tune, pack, and run on ordinary CPUs."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line on ``arguments`` (`sys.argv` without them) and exit."""
    warnings.showwarning = _show_warning
    try:
        app(arguments, prog_name="sparsebert")
    except Exception:
        traceback.print_exc()
        _say(
            "This is a fault of sparsebert, not yours",
            "please report it with the lines above, the command, and: "
            f"sparsebert {__version__}, Python {platform.python_version()}, "
            f"{platform.system()} {platform.machine()}.",
        )
        sys.exit(1)
    sys.exit(0)


def _say(label: str, message: str) -> None:
    stderr.print(f"{label}: {message}", markup=False)


def _show_warning(message: Warning | str, *_where: object, **_more: object) -> None:
    """A warning is a sentence for the user; where in our code it arose is not."""
    _say("warning", str(message))
