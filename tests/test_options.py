"""Options are declared once: checks, keywords of functions and the command line follow from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from sparsebert.errors import InputError
from sparsebert.options import Options, declarations, dependents, option, option_types
from sparsebert.serving.options import ServingOptions
from sparsebert.tasks.data_options import DataKeywords, DataOptions
from sparsebert.training.options import NEED_TEACHER, FinetuneKeywords, FinetuneOptions
from sparsebert.training.upstream.options import UpstreamKeywords, UpstreamOptions


@dataclass(frozen=True)
class Baking(Options):
    error = InputError
    purpose = "baking"

    minutes: int = option(30, least=1)
    trays: int = option(1, least=1, most=4)
    heat: float | None = option(None, above=0)
    share: float = option(0.5, least=0, below=1)
    loss: float = option(0.0, least=0)
    flour: str = option("wheat", choices=("wheat", "rye"))
    fan: bool = option(False, without="without a fan")
    speed: int = option(1, needs="fan", without="at that speed")
    noise: int = option(0, needs="speed")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"minutes": 0}, "minutes must be an integer of at least 1, not 0."),
        ({"trays": 5}, "trays must be an integer from 1 to 4, not 5."),
        ({"minutes": 1.5}, "minutes must be an integer, not 1.5."),
        ({"minutes": None}, "minutes must be an integer, not None."),
        ({"minutes": True}, "minutes must be an integer, not True."),
        ({"heat": 0}, "heat must be greater than 0 and finite, not 0."),
        ({"heat": float("inf")}, "heat must be greater than 0 and finite, not inf."),
        ({"share": 1}, "share must be at least 0 and below 1, not 1."),
        ({"share": float("nan")}, "share must be at least 0 and below 1, not nan."),
        ({"loss": -1.0}, "loss must be at least 0 and finite, not -1.0."),
        ({"flour": "spelt"}, "flour must be one of wheat, rye, not 'spelt'."),
        ({"flour": 3}, "flour must be a string, not 3."),
        ({"fan": 1}, "fan must be true or false, not 1."),
        ({"speed": 2}, "speed is 2 but has no meaning without a fan."),
        ({"noise": 2}, "noise is 2 but has no meaning without a fan."),
        ({"fan": True, "noise": 2}, "noise is 2 but has no meaning at that speed."),
        (
            {"minuets": 3},
            "'minuets' is not an option of baking: choose from minutes, trays, heat, share, loss, "
            "flour, fan, speed, noise.",
        ),
    ],
)
def test_a_value_that_is_refused_is_named_with_its_limits(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as error:
        Baking.from_names(given)
    assert str(error.value) == message


def test_values_within_the_limits_are_kept() -> None:
    options = Baking.from_names({"heat": 1, "share": 0, "fan": True, "speed": 2, "noise": 1})
    assert options.given() == {"heat": 1, "share": 0, "fan": True, "speed": 2, "noise": 1}
    assert list(options.as_dict()) == [field.name for field in fields(Baking)]
    assert Baking.minutes == 30
    assert dependents(Baking, "fan") == ("speed", "noise")


def test_what_needs_a_teacher() -> None:
    assert NEED_TEACHER == (
        "temperature",
        "task_weight",
        "logits_weight",
        "hidden_weight",
        "attention_weight",
        "token_noise",
        "unlabelled",
        "unlabelled_rows",
    )


@pytest.mark.parametrize(
    ("options", "keywords", "named_apart"),
    [
        (FinetuneOptions, FinetuneKeywords, {"seed"}),
        (UpstreamOptions, UpstreamKeywords, set()),
        (DataOptions, DataKeywords, set()),
    ],
)
def test_keywords_are_the_options_with_their_types(
    options: type[Options], keywords: type, named_apart: set[str]
) -> None:
    declared = {
        name: hint
        for name, hint in get_type_hints(options).items()
        if name in declarations(options) and name not in named_apart
    }
    taken = get_type_hints(keywords)
    assert list(taken) == list(declared)
    for name, hint in declared.items():
        paths = {Path} & set(get_args(taken[name]))  # a path is passed on as its text
        assert set(get_args(taken[name]) or [taken[name]]) - paths == set(get_args(hint) or [hint])


@pytest.mark.parametrize("options", [FinetuneOptions, UpstreamOptions, DataOptions, ServingOptions])
def test_defaults_are_valid_and_typed(options: type[Options]) -> None:
    for name, value in options().as_dict().items():
        assert value is None or isinstance(value, (option_types(options)[name], int)), name
