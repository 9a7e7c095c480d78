"""Messages that quote a stranger's file, and the boundary around what reads it."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import pytest

from sparsebert.errors import (
    CheckpointError,
    DataError,
    InputError,
    OtherRunError,
    SparsebertError,
    one_line,
    reading,
)


class PanicException(BaseException):
    """As the Rust libraries raise it: no Exception."""


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a plain sentence, naïve 東京.", "a plain sentence, naïve 東京."),
        ("two\nlines\r\n", "two lines"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("half \ud800 of a pair", r"half \ud800 of a pair"),
        ("right \u202eto left", r"right \u202eto left"),
        ("nothing\0more", r"nothing\x00more"),
    ],
)
def test_a_message_is_one_line_that_a_terminal_shows(said: str, shown: str) -> None:
    assert str(SparsebertError(said)) == shown


def test_a_message_is_cut_in_its_middle() -> None:
    begin, end = "'config.json' has the key ", "; take it out."
    message = str(CheckpointError(begin + "é\n" * 100_000 + end))
    assert len(message) == 300
    assert message.startswith(begin)
    assert message.endswith(end)
    assert message.isprintable()


def test_a_message_on_a_run_quotes_long_paths_whole() -> None:
    model, teacher = ("/".join([letter * 100] * 4) for letter in "mt")
    said = f"the unfinished run was started otherwise: model was {model!r} and is now {teacher!r}."
    assert str(OtherRunError(said)) == said
    assert len(str(OtherRunError(said * 10))) == 2_000


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (OSError(errno.EIO, "Input/output error", "x"), "Input/output error"),
        (RecursionError("maximum recursion depth exceeded"), "it is nested too deeply"),
        (MemoryError(), "it needs more memory than is available"),
        (ValueError("day is out of range."), "day is out of range"),
        (KeyError("vocab"), "KeyError: 'vocab'"),
        (OverflowError("too large"), "OverflowError: too large"),
        (AssertionError(), "AssertionError"),
        (PanicException("index out of bounds"), "PanicException: index out of bounds"),
        (Exception("the Rust libraries' own\nand more"), "the Rust libraries' own"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_a_reader_raises_names_the_file(fault: BaseException, reason: str) -> None:
    with pytest.raises(DataError) as found, reading(Path("rows.csv"), DataError):
        raise fault
    assert str(found.value) == f"rows.csv cannot be read: {reason}."
    assert found.value.__cause__ is fault


@pytest.mark.parametrize(
    "raised", [InputError("ours"), KeyboardInterrupt(), SystemExit(3), DeprecationWarning("old")]
)
def test_what_a_reader_did_not_stumble_over_passes_as_it_is(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as found, reading("rows.csv", DataError):
        raise raised
    assert found.value is raised


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: no_such_name,  # type: ignore[name-defined]  # noqa: F821
        lambda: __import__("no_such_module"),
        lambda: errno.no_such_name,  # type: ignore[attr-defined]
        lambda: InputError("ours").no_such_name,  # type: ignore[attr-defined]
    ],
)
def test_names_that_a_program_has_wrong_are_no_damage(wrong: Callable[[], object]) -> None:
    with pytest.raises((NameError, ImportError, AttributeError)), reading("rows.csv", DataError):
        wrong()


@pytest.mark.parametrize(
    ("module", "call", "ours"),
    [
        ("sparsebert.reader", "one_line()", True),
        ("sparsebert.reader", "one_line('a', 1, 2)", True),
        ("sparsebert.reader", "one_line('a', width=3)", True),
        ("json.decoder", "one_line('a', width=3)", False),
        ("sparsebert.reader", "Read(**{'rows': 1})", False),
        ("sparsebert.reader", "None['rows']", False),
        ("sparsebert.reader", "len(3)", False),
        ("sparsebert.reader", "'a' + 3", False),
    ],
)
def test_calls_that_our_code_has_wrong_are_no_damage(module: str, call: str, ours: bool) -> None:
    names = {"__name__": module, "one_line": one_line, "Read": make_dataclass("Read", ["columns"])}
    with pytest.raises(TypeError if ours else DataError), reading("rows.csv", DataError):
        exec(call, names)


def test_an_attribute_that_is_missing_of_what_was_read_is_damage() -> None:
    read: Any = json.loads("[1]")
    with (
        pytest.raises(DataError, match="cannot be read: AttributeError: 'list' object has no"),
        reading("rows.json", DataError),
    ):
        read.items()
