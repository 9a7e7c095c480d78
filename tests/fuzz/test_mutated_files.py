"""A short run of mutate_files.py without any fault; `make fuzz` is the long one."""

from __future__ import annotations

import sys

import pytest
from mutate_files import run

pytestmark = pytest.mark.thorough


def test_mutated_files_are_answered_or_refused() -> None:
    if sys.platform != "linux":
        pytest.skip("peak memory is read from /proc: on Linux")
    pytest.importorskip("torch")
    pytest.importorskip("pyarrow")
    counts, refused, faults = run(range(1000), seconds=1800, seed=1)
    assert not faults, "\n".join(faults)
    assert counts.total() == 1000
    assert (
        300 < refused < 900
    )  # neither is every file whole, nor does none get past the first check
