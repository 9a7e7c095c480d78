"""A server as its users run it: `sparsebert serve`, a process of its own, with a key."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

KEY = "a-key-that-nobody-guesses"


def need(*libraries: str) -> None:
    """Skip a file of tests where a client is missing, as in the environment of `make test`."""
    for name in libraries:
        pytest.importorskip(
            name, reason="the official clients are not installed here: run `make test-clients`"
        )


@contextmanager
def serving(*models: Any) -> Iterator[str]:
    """The address of a server of ``models``, each a folder or a name and a folder."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sparsebert", "serve", *map(str, models), "--port=0", "--threads=1"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SPARSEBERT_API_KEY": KEY},
    )
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"http://[\w.:]+", line):
                break
        else:
            pytest.fail("".join(lines))
        yield found[0]
    finally:
        process.kill()
        process.communicate()
