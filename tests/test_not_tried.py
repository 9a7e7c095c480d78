"""A test run ends by saying what it skipped, and why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from checkout import SUPPORT
from not_tried import not_tried

SKIPPED = """
import pytest

@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.skipif(True, reason="no Chromium: apt install chromium")
def test_a_page(size):
    pass

def test_a_library():
    pytest.importorskip("no_such_library.part")

def test_more():
    pytest.skip("no model: name one")
"""


def test_the_last_lines_group_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(SKIPPED, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "not_tried", "-c", os.devnull, "test_some.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(SUPPORT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    title, *lines, _, closing = done.stdout.splitlines()[-6:]
    assert "not tried" in title, done.stdout + done.stderr
    assert lines == [
        "    2  no Chromium: apt install chromium",
        "    1  no model: name one",
        "    1  no_such_library is not installed: `make test` installs it, or pip install '.[dev]'",
    ]
    assert "4 skipped" in closing


def test_nothing_skipped_is_nothing_said() -> None:
    assert not_tried([]) == []
