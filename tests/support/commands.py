"""The command line as a test runs it, in this process."""

from __future__ import annotations

from collections.abc import Callable

from typer.testing import CliRunner, Result

from sparsebert.cli.app import app

Run = Callable[..., tuple[int, str, str]]  # the fixture run


def invoke(*arguments: object, lines: str | bytes = "") -> Result:
    """Typer's result of a command; ``lines`` is its standard input."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=lines)
