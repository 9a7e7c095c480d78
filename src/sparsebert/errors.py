"""The exceptions that sparsebert raises on purpose.

    SparsebertError
    ├── CheckpointError                 a folder that cannot be read as a model
    │   └── UnsupportedArchitectureError
    ├── PatternError                    an N:M pattern that is invalid, or does not fit or hold
    ├── OutputError                     an output folder that exists or cannot be written
    ├── InputError                      an input or argument that the model or function cannot take
    ├── DataError                       a task file with missing columns, bad labels, no rows
    ├── TrainingError                   a training run that cannot continue or broke its pattern
    │   └── OtherRunError               one that was started with other options, data or models
    ├── EngineError                     an instruction set or thread count that is not available
    ├── ExportError                     an exported file that does not match the model
    ├── ClusterError                    a Ray cluster that cannot be reached or cannot continue
    └── MissingExtraError               an optional part of the package is not installed

Each message tells the user, in a sentence or two, what is wrong, where, and what to do. The command
line prints it and exits with 1; a traceback means a bug in sparsebert.

Messages quote files, which may come from untrusted sources, so `one_line` makes each message safe
to print. Code that reads files runs inside `reading`, which turns any exception into one of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

_LONGEST = 300  # characters of a message
_CUT = " [...] "


def one_line(text: str, longest: int = _LONGEST) -> str:
    """``text`` as a single line that is safe to print on a terminal.

    If it is longer than ``longest`` characters, the middle is cut out, since the end is where
    messages say what to do.
    """
    line = printable(" ".join(part for part in text.splitlines() if part))
    if len(line) > longest:
        end = longest // 3
        line = line[: longest - end - len(_CUT)] + _CUT + line[-end:]
    return line


def printable(text: str, also: str = "") -> str:
    """``text`` with escapes (\\x1b) for characters that are neither printable nor in ``also``."""
    if text.isprintable():
        return text
    return "".join(
        mark if mark.isprintable() or mark in also else ascii(mark)[1:-1] for mark in text
    )


class SparsebertError(Exception):
    """Base class of all errors in this package: catch it to catch any of them."""

    longest = _LONGEST  # characters of a message, which may quote any file

    def __init__(self, *arguments: object) -> None:
        super().__init__(
            *(one_line(each, self.longest) if isinstance(each, str) else each for each in arguments)
        )


class CheckpointError(SparsebertError):
    """A folder is not a model folder, or its config and weights are damaged or do not match."""


class UnsupportedArchitectureError(CheckpointError):
    """The model has an architecture that sparsebert does not support."""


class PatternError(SparsebertError):
    """An N:M pattern is invalid, does not divide a layer, or does not hold in its weights."""


class OutputError(SparsebertError):
    """An output folder already exists or could not be written. What was there is untouched."""


class InputError(SparsebertError):
    """A text, token ids or an argument that cannot be used, such as an empty or too long text."""


class DataError(SparsebertError):
    """A task's data cannot be used because of its file, columns, labels or rows."""


class TrainingError(SparsebertError):
    """A training run cannot start or continue, or ended with a broken pattern."""


class OtherRunError(TrainingError):
    """The run to be resumed was started with other options, data or models."""

    longest = 2_000  # it quotes the user's own options, including paths, both old and new


class EngineError(SparsebertError):
    """The engine cannot run as requested (instruction set, threads), or a GPU is missing."""


class ExportError(SparsebertError):
    """An exported file lost zeros or gives different outputs from the model; it was not kept."""


class ClusterError(SparsebertError):
    """A Ray cluster cannot be reached, or work on it cannot continue."""


class MissingExtraError(SparsebertError):
    """A feature needs an optional dependency; the message names the extra to install."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs the [{extra}] extra: pip install 'sparsebert[{extra}]'.")


@contextmanager
def reading(what: str | Path, kind: type[SparsebertError]) -> Iterator[None]:
    """Turn any exception raised while ``what`` is read into an error of ``kind`` that names it.

    Files can be damaged in more ways than their readers expect: numbers too large for any type,
    lists in place of names, Rust libraries that panic with something that is not an Exception. This
    is for code that reads and checks, never for code that computes, where an exception is a bug of
    ours. SparsebertErrors, warnings turned into errors, requests to exit, and wrong names or calls
    in our own code are passed on unchanged.
    """
    try:
        yield
    except (SparsebertError, Warning, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as fault:
        if _is_wrong_name(fault) or _is_wrong_call(fault):
            raise
        raise kind(f"{what} cannot be read: {reason_of(fault)}.") from fault


def _is_wrong_name(fault: BaseException) -> bool:
    """Whether a variable, a module, or an attribute of a module or of our own classes is missing.

    A file cannot cause that, whereas values read from one may well lack an attribute.
    """
    if isinstance(fault, AttributeError):
        of = fault.obj
        return isinstance(of, ModuleType) or type(of).__module__.split(".")[0] == __package__
    return isinstance(fault, NameError | ImportError)


# __init__ is excepted: a class may be made from a file's fields, and one may be missing or extra.
_WRONG_CALL = re.compile(r"(?!\S*__init__\(\))\S+\(\) (takes|missing|got) ")


def _is_wrong_call(fault: BaseException) -> bool:
    """Whether our own code called a function with the wrong arguments."""
    if not isinstance(fault, TypeError) or not _WRONG_CALL.match(str(fault)):
        return False
    place = fault.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    name = "" if place is None else str(place.tb_frame.f_globals.get("__name__"))
    return name.split(".")[0] == __package__


def reason_of(fault: BaseException) -> str:
    """What an exception says, worded for the middle of a sentence."""
    if isinstance(fault, RecursionError):
        return "it is nested too deeply"
    if isinstance(fault, MemoryError):
        return "it needs more memory than is available"
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    said = str(fault).strip().split("\n")[0].rstrip(".")
    plain = isinstance(fault, ValueError) or type(fault) is Exception  # as Rust libraries raise
    return said if said and plain else f"{type(fault).__name__}: {said}".rstrip(": ")
