"""The command line: the commands, and `main`, which runs them."""

from sparsebert.cli.app import main as main

__all__ = ["main"]
