"""A folder that one process works in, and what tells it from one that a killed process left.

The lock is the system's own on a file in the folder: it ends with its process, however that ends.
Where a file system knows no locks, none is held.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

LOCK_NAME = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class FolderLock:
    """A lock that is held; `take` makes it."""

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
