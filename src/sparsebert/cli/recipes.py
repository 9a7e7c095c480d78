"""`sparsebert recipes`: the settings that come with sparsebert, for `finetune --recipe`."""

from __future__ import annotations

from typing import Annotated

import typer

from sparsebert.cli.console import JsonOption, emit


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Recipe to print; without a name, all are listed."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the recipes that come with sparsebert, or print one.

    `finetune --recipe NAME` uses one. They are those behind the published results; to change one,
    redirect it into a file.
    """
    from sparsebert.training.recipe import shipped_recipes

    known = shipped_recipes()
    if name is None:
        width = max(map(len, known))
        text = "\n".join(f"{each:<{width}}  {about}" for each, (_, about) in known.items())
        emit({each: about for each, (_, about) in known.items()}, text, as_json=json)
        return
    if name not in known:
        raise typer.BadParameter(f"choose from {', '.join(known)}.", param_hint="NAME")
    text = known[name][0].read_text(encoding="utf-8")
    emit({"name": name, "recipe": text}, text.rstrip("\n"), as_json=json)
