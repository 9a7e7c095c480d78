"""The `sparsebert` command line: its commands, and how errors end them.

    exit 0   done
    exit 1   an error: one `error:` line for what the user can fix, a traceback for our own bugs
    exit 2   wrong usage
    exit 130 interrupted

A command's module imports nothing heavy at its top: `--help` is fast and never imports torch.
"""

from __future__ import annotations

import io
import os
import platform
import sys
import traceback
import warnings
from contextlib import suppress
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
from sparsebert.cli.fill import fill
from sparsebert.cli.finetune import finetune
from sparsebert.cli.halve import halve
from sparsebert.cli.options import expanded
from sparsebert.cli.prune import inspect, prune
from sparsebert.cli.push import push
from sparsebert.cli.recipes import recipes
from sparsebert.cli.rerank import rerank
from sparsebert.cli.serve import serve
from sparsebert.cli.table import table
from sparsebert.cli.tag import tag
from sparsebert.errors import SparsebertError, one_line, reason_of

# In the order of the workflow, which is the order of --help.
COMMANDS = (
    halve,
    convert,
    prune,
    finetune,
    recipes,
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
    rerank,
    answer,
    tag,
    fill,
    serve,
    demo,
)


class _Commands(TyperGroup):
    """Turns an exception of a command into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here, not at exit, where errors such as a full disk go unhandled
            return result
        except SparsebertError as error:
            _print("error", str(error))
            raise typer.Exit(1) from error
        except KeyboardInterrupt as stop:
            _print("interrupted", "stopped at your request; finished folders are complete.")
            raise typer.Exit(130) from stop
        except OSError as error:  # not handled where it arose: report the system's reason
            if not isinstance(error, BrokenPipeError):
                named = "" if error.filename is None else f"{error.filename}: "
                _print("error", one_line(f"{named}{reason_of(error)}."))
            # If the output's reader has gone away (| head) or the disk is full, the interpreter
            # would report it again when it flushes standard output at exit.
            with suppress(OSError):  # standard output may not be a file, as in tests
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from error
        except MemoryError as error:
            _print("error", "there is not enough memory for this.")
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _command in COMMANDS:
    # Each of the server's options may also be set by a variable: SPARSEBERT_ and its name.
    _settings = {"auto_envvar_prefix": "SPARSEBERT"} if _command is serve else None
    app.command(name=_command.__name__, context_settings=_settings)(expanded(_command))


def _version(value: bool) -> None:
    if value:
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
    if isinstance(sys.stdout, io.TextIOWrapper):  # in a locale that is not UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(arguments, prog_name="sparsebert")
    except SystemExit:
        raise
    except BaseException:  # the Rust libraries' PanicException is not an Exception
        traceback.print_exc()
        _print(
            "This is a bug in sparsebert, not your mistake",
            "please report it with the lines above, the command, and: "
            f"sparsebert {__version__}, Python {platform.python_version()}, "
            f"{platform.system()} {platform.machine()}.",
        )
        sys.exit(1)
    sys.exit(0)


def _print(label: str, message: str) -> None:
    stderr.print(f"{label}: {message}", markup=False)


def _show_warning(message: Warning | str, *_where: object, **_more: object) -> None:
    """Print a warning without the place in the code that raised it."""
    _print("warning", str(message))
