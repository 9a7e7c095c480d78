"""Writing a file as a whole or not at all; `sparsebert.checkpoint.staging` does it for folders."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` for the block to write; then it takes its name.

    Whoever reads ``path`` meanwhile finds the old file or the new one. If the block fails or is
    interrupted nothing is left, and what stood at ``path`` stays. Raises OSError as writing does.
    """
    temporary = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync(path: str | Path) -> None:
    """Have the bytes on disk before they get their name: a crash must not leave an empty file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
