"""How long work tells its caller how far it is, without knowing who is watching.

A `Progress` is called with what is being done, how many steps are done, and how many there are
(0 while unknown). The command line draws bars from it; a library user passes None or a function.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]


def silent(_label: str, _done: int, _total: int) -> None:
    """The progress of a caller who did not ask for any."""


def named(progress: Progress, name: str) -> Progress:
    """The same progress with ``name`` before each label, for one part among several alike."""
    return lambda label, done, total: progress(f"{name}: {label}", done, total)
