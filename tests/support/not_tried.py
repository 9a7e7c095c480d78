"""The closing lines of a test run: what was skipped, and how to have it tried.

A test that is skipped says in its reason what it lacks and how to get it; here equal reasons are
told once. pytest's own list of skipped tests is left out (``-r`` in pyproject.toml).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterable

import pytest

_MISSING_MODULE = re.compile(r"could not import '([\w.]+)'")  # of pytest.importorskip


def not_tried(reasons: Iterable[str]) -> list[str]:
    """A line for each reason, with how many tests (or whole files of them) gave it."""
    counts = Counter(map(_with_advice, reasons))
    return [f"{counts[reason]:5d}  {reason}" for reason in sorted(counts)]


def _with_advice(reason: str) -> str:
    reason = reason.removeprefix("Skipped: ")
    if missing := _MISSING_MODULE.match(reason):
        library = missing[1].partition(".")[0]
        return f"{library} is not installed: `make test` installs it, or pip install '.[dev]'"
    return reason


@pytest.hookimpl(wrapper=True, tryfirst=True)  # after all that pytest itself sums up
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter,
) -> Generator[None, None, None]:
    yield
    reports = terminalreporter.stats.get("skipped", [])
    reasons = [report.longrepr[2] for report in reports if isinstance(report.longrepr, tuple)]
    if reasons:
        terminalreporter.section("not tried here, and how to have it tried")
        for line in not_tried(reasons):
            terminalreporter.line(line)
