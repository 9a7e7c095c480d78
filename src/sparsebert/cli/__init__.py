"""The command line: one verb a file, and this package's `main` around them."""

from sparsebert.cli.app import main as main

__all__ = ["main"]
