"""Everything sparsebert raises on purpose.

    SparsebertError
    ├── CheckpointError                 a model folder that cannot be read as one
    │   └── UnsupportedArchitectureError
    ├── PatternError                    an N:M pattern that does not exist, fit or hold
    ├── OutputError                     an output folder that exists or cannot be written
    ├── InputError                      a text or token sequence the model cannot take
    ├── DataError                       a task file with missing columns, bad labels, no rows
    ├── TrainingError                   a training that cannot go on or ended with a broken mask
    │   └── OtherRunError               one that was begun with other options, data or models
    ├── EngineError                     an instruction set or thread count that cannot be had
    ├── ExportError                     an exported file that is not the model it was made from
    ├── ClusterError                    a Ray cluster that cannot be reached or cannot go on
    └── MissingExtraError               an optional part of the package is not installed

Each message is one sentence or two for the person at the keyboard: what is wrong, where, what to
do. The command line prints it and exits with 1; a traceback is kept for faults of our own.

Messages quote files, which may come from strangers: `one_line` makes each of them safe to print.
Readers of files are bounded by `reading`, which turns every exception of theirs into one of these.
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
    """``text`` as a line which a terminal shows and does not obey.

    Of more than ``longest`` characters the middle is left out, not the last third, where messages
    say what to do.
    """
    line = printable(" ".join(part for part in text.splitlines() if part))
    if len(line) > longest:
        end = longest // 3
        line = line[: longest - end - len(_CUT)] + _CUT + line[-end:]
    return line


def printable(text: str, also: str = "") -> str:
    """``text`` with escapes (\\x1b) in place of whatever is neither printable nor in ``also``."""
    if text.isprintable():
        return text
    return "".join(
        mark if mark.isprintable() or mark in also else ascii(mark)[1:-1] for mark in text
    )


class SparsebertError(Exception):
    """Base of every error in this package: catch it to catch them all."""

    longest = _LONGEST  # characters of a message, which may quote any file

    def __init__(self, *arguments: object) -> None:
        super().__init__(
            *(one_line(each, self.longest) if isinstance(each, str) else each for each in arguments)
        )


class CheckpointError(SparsebertError):
    """A folder is not a model folder, or its config and weights are damaged or disagree."""


class UnsupportedArchitectureError(CheckpointError):
    """The model is of an architecture that sparsebert does not know."""


class PatternError(SparsebertError):
    """An N:M pattern is malformed, does not divide a layer, or does not hold in its weights."""


class OutputError(SparsebertError):
    """An output folder exists already, or could not be written. What was there stays whole."""


class InputError(SparsebertError):
    """A text or a token sequence that the model cannot take (empty, too long, id out of range)."""


class DataError(SparsebertError):
    """A task's data cannot be used: file, columns, labels or rows."""


class TrainingError(SparsebertError):
    """A training run cannot go on, or ended with a pattern that is no longer whole."""


class OtherRunError(TrainingError):
    """A run that would be resumed was begun with other options, data or models."""

    longest = 2_000  # it quotes the user's own options, among them paths, as they were and are now


class EngineError(SparsebertError):
    """The native engine cannot run as asked (instruction set, threads), or a GPU is missing."""


class ExportError(SparsebertError):
    """An exported file has lost zeros or gives other outputs than the model; it was not kept."""


class ClusterError(SparsebertError):
    """A Ray cluster cannot be reached, or work on it cannot go on."""


class MissingExtraError(SparsebertError):
    """A feature needs an optional dependency; the message names the extra to install."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs the [{extra}] extra: pip install 'sparsebert[{extra}]'.")


@contextmanager
def reading(what: str | Path, kind: type[SparsebertError]) -> Iterator[None]:
    """Whatever is raised while ``what`` is read becomes an error of ``kind`` that names it.

    Files may be damaged in more ways than their readers know: numbers beyond every type, lists
    where names should be, and libraries in Rust that panic with what is no Exception at all. For
    code that reads and checks, never for code that computes: there an exception is our own fault.
    SparsebertErrors, warnings that were made errors, what asks the program to end, and names and
    calls that the program itself has wrong pass as they are.
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
    """Whether a variable, a module, or an attribute of a module or of a class of ours is missing.

    No file makes that happen, unlike a missing attribute of the values that were read out of it.
    """
    if isinstance(fault, AttributeError):
        of = fault.obj
        return isinstance(of, ModuleType) or type(of).__module__.split(".")[0] == __package__
    return isinstance(fault, NameError | ImportError)


# A class may be made of what a file says, and then lack a field or have one too many.
_WRONG_CALL = re.compile(r"(?!\S*__init__\(\))\S+\(\) (takes|missing|got) ")


def _is_wrong_call(fault: BaseException) -> bool:
    """Whether code of ours called a function with other arguments than it takes."""
    if not isinstance(fault, TypeError) or not _WRONG_CALL.match(str(fault)):
        return False
    place = fault.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    name = "" if place is None else str(place.tb_frame.f_globals.get("__name__"))
    return name.split(".")[0] == __package__


def reason_of(fault: BaseException) -> str:
    """What an exception of Python or of a library says, for the middle of a sentence."""
    if isinstance(fault, RecursionError):
        return "it is nested too deeply"
    if isinstance(fault, MemoryError):
        return "it needs more memory than there is"
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    said = str(fault).strip().split("\n")[0].rstrip(".")
    plain = isinstance(fault, ValueError) or type(fault) is Exception  # the Rust libraries' own
    return said if said and plain else f"{type(fault).__name__}: {said}".rstrip(": ")
