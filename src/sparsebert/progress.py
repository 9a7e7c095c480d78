"""How long-running work reports progress, without knowing who is watching.

A `Progress` is called with what is being done, how many steps are done, and how many there are
(0 while unknown). The command line draws bars from it; a library user passes a function, or None
for bars in a notebook and nothing elsewhere (`silent` reports nothing anywhere).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

Progress = Callable[[str, int, int], None]


def silent(_label: str, _done: int, _total: int) -> None:
    """The progress of a caller who did not ask for any."""


def named(progress: Progress, name: str) -> Progress:
    """The same progress with ``name`` before each label, for one of several similar parts."""
    return lambda label, done, total: progress(f"{name}: {label}", done, total)


def shown(progress: Progress | None) -> Progress:
    """The caller's own progress; without one, bars in a notebook and nothing elsewhere."""
    if progress is not None:
        return progress
    return notebook_bars() if _in_notebook() else silent


def notebook_bars() -> Progress:
    """A bar for each label: tqdm's, which every kind of notebook knows how to draw."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return silent
    bars: dict[str, Any] = {}

    def draw(label: str, done: int, total: int) -> None:
        finished = bool(total) and done >= total
        if label not in bars or (bars[label] is None and not finished):  # new, or started again
            bars[label] = tqdm(desc=label, total=total or None)
        bar = bars[label]
        if bar is None:  # reported as finished before
            return
        bar.total = total or None
        bar.update(done - bar.n)
        if finished:
            bar.close()
            bars[label] = None

    return draw


def _in_notebook() -> bool:
    """Whether this is a kernel (Jupyter, VS Code, Colab) and not a terminal's IPython."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")
