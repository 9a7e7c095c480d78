"""The options with which `finetune`, `evaluate`, `doctor` and `prune` read data of one's own."""

from __future__ import annotations

from typing import Annotated

import typer

_PANEL = "Your own data"

TextColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The column with the texts.",
        show_default="the task's; text or sentence",
        rich_help_panel=_PANEL,
    ),
]
PairColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The column with the second text of a pair.",
        show_default="the task's; text2 or sentence2",
        rich_help_panel=_PANEL,
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The column with the labels.",
        show_default="the task's; label, or score for numbers",
        rich_help_panel=_PANEL,
    ),
]
Regression = Annotated[
    bool,
    typer.Option(
        "--regression",
        help="With --task custom: the labels are numbers to predict, not names of classes.",
        rich_help_panel=_PANEL,
    ),
]
PositiveLabel = Annotated[
    str | None,
    typer.Option(
        metavar="LABEL",
        help="With --task custom: the class that F1 is of.",
        show_default="1 or true beside 0 or false, else the mean over the classes",
        rich_help_panel=_PANEL,
    ),
]
ValidationShare = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Of data in one file that is named after no split, hold this share of each class out "
        "to score on; 0 trains on all rows.",
        show_default="0.2",
        rich_help_panel=_PANEL,
    ),
]
