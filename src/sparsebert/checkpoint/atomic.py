"""Building blocks of atomic writing: replaced files, folder locks, SIGTERM.

`sparsebert.checkpoint.staging` does it for folders. A folder lock is the system's own, on a file in
the folder: it ends with its process, however that ends, and so tells a folder in use from one that
a killed process left. On a file system without locks none is taken.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn


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


LOCK_NAME = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class FolderLock:
    """An acquired lock; `take` makes it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    @classmethod
    def take(cls, folder: Path) -> FolderLock | None:
        """Lock a folder; None where another process has, or where this one does already.

        Raises OSError if the folder is not there or cannot be written.
        """
        file = folder / LOCK_NAME
        while True:
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    os.close(handle)
                    if isinstance(error, BlockingIOError):
                        return None
                    raise
            # The folder may have been removed, and made again, since the file was opened.
            if _is_open_as(file, handle):
                return cls(handle)
            os.close(handle)

    def release(self, folder: Path) -> None:
        """Let go, and remove the lock's file from ``folder``, where its folder is by now."""
        with suppress(OSError):
            (folder / LOCK_NAME).unlink()
        os.close(self._handle)


def _is_open_as(file: Path, handle: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Inside, SIGTERM raises KeyboardInterrupt, so that temporary files are removed.

    Python delivers signals to the main thread only: elsewhere nothing is changed, and neither is a
    program's own way with the signal.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
