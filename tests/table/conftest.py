"""The runs that the tests of the table share."""

from __future__ import annotations

from pathlib import Path

import pytest

from table_runs import write_runs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return write_runs(tmp_path / "runs")
