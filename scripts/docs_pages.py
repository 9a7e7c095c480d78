"""The parts of the documentation site that are made from the code: an mkdocs hook, see mkdocs.yml.

A page requests a part with a comment such as ``<!-- made: commands -->``. Nothing here imports
torch, and neither does `sparsebert --help`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]


def commands() -> str:
    """Each command with its arguments and options, as typer itself describes them."""
    import typer
    from typer.cli import get_docs_for_click

    from sparsebert.cli.app import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="sparsebert")
    # Starts at the first command: the list before it truncates their descriptions.
    return text[text.index("## ") :].replace("```console\n$ ", "```sh\n")


def recipes() -> str:
    """The recipes of the runs in full, each under its name."""
    files = sorted((CHECKOUT / "runs" / "recipes").glob("*.yaml"))
    return "\n".join(
        f"### {file.stem}\n\n```yaml\n{file.read_text(encoding='utf-8')}```\n" for file in files
    )


MADE: dict[str, Callable[[], str]] = {"commands": commands, "recipes": recipes}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with the text of each page."""
    return re.sub(r"<!-- made: (\w+) -->", lambda found: MADE[found[1]](), markdown)
