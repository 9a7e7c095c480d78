"""Building blocks of atomic writing: replaced files, exchanged names, locks, SIGTERM.

`sparsebert.checkpoint.staging` does it for folders. A lock is the system's own, on a file (for a
folder on one in it): it ends with its process, however that ends, and so tells work in progress
from what a killed process left. On a file system without locks none is taken, and nothing is taken
for left behind.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` for the block to write; then it takes its name.

    An empty file is there already. Whoever reads ``path`` meanwhile finds the old file or the new
    one. If the block fails or is interrupted nothing is left, and what stood at ``path`` stays;
    what a killed process left is removed by the next. Raises OSError as writing does.
    """
    _remove_abandoned(path)
    temporary, lock = _claim(path)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    finally:
        lock.close()
    sync_names(path.parent)


def _claim(path: Path) -> tuple[Path, Lock]:
    """A file beside ``path`` of a name of its own, locked as long as it is written."""
    while True:
        temporary = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
        lock = Lock.take(temporary, os.O_CREAT | os.O_EXCL)
        if lock is not None:  # else it was taken for abandoned before it was locked
            return temporary, lock


def _remove_abandoned(path: Path) -> None:
    for file in siblings(path, "partial"):
        with suppress(OSError):  # somebody else's, a folder, or gone meanwhile
            lock = Lock.take(file)
            if lock is not None:
                if lock.held:
                    file.unlink()
                lock.close()


def siblings(path: Path, kind: str) -> list[Path]:
    """The files and folders ``.NAME.KIND-12345678`` beside ``path``."""
    name = re.compile(rf"\.{re.escape(path.name)}\.{kind}-[0-9a-f]{{8}}")
    return [path.with_name(each) for each in os.listdir(path.parent) if name.fullmatch(each)]


def sync(path: str | Path) -> None:
    """Have the bytes on disk before they get their name: a crash must not leave an empty file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_names(folder: Path) -> None:
    """Have the names in a folder on disk, where its file system can do that for a folder."""
    with suppress(OSError):
        sync(folder)


def sync_all(folder: Path) -> None:
    """Have files and their names on disk, so that the folder's own name never comes before them."""
    for path in folder.rglob("*"):
        if path.is_file():
            sync(path)
        else:
            sync_names(path)
    sync_names(folder)


def exchange(one: Path, other: Path) -> bool:
    """Have two folders change names in one step; False where system or file system cannot."""
    libc = ctypes.CDLL(None)
    names = os.fsencode(one), os.fsencode(other)
    try:
        if sys.platform == "darwin":
            return not libc.renamex_np(*names, 2)  # RENAME_SWAP
        here = -100  # AT_FDCWD
        return not libc.renameat2(here, names[0], here, names[1], 2)  # RENAME_EXCHANGE
    except AttributeError:
        return False


LOCK_NAME = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class Lock:
    """A lock on a file; `take` makes it. ``held`` is False where the file system has none."""

    def __init__(self, handle: int, held: bool) -> None:
        self._handle = handle
        self.held = held

    @classmethod
    def take(cls, file: Path, flags: int = 0) -> Lock | None:
        """Lock a file, opened with ``flags``; None where another lock is on it, this process's too.

        Also None if the file was removed, or made again, meanwhile. Raises OSError if it cannot be
        opened for writing.
        """
        handle = os.open(file, os.O_RDWR | flags, 0o666)
        held = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                if isinstance(error, BlockingIOError):
                    return None
                raise
            held = False
        if _is_open_as(file, handle):
            return cls(handle, held)
        os.close(handle)
        return None

    def close(self) -> None:
        """Let go."""
        os.close(self._handle)


class FolderLock:
    """A lock on a folder; `take` makes it. ``held`` is False where the file system has none."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self.held = lock.held

    @classmethod
    def take(cls, folder: Path) -> FolderLock | None:
        """Lock a folder; None where another process has, or where this one does already.

        Raises OSError if the folder is not there or cannot be written.
        """
        file = folder / LOCK_NAME
        while True:
            lock = Lock.take(file, os.O_CREAT)
            if lock is not None:
                return cls(lock)
            if file.exists():  # else its folder was removed, and made again, or it was let go of
                return None

    def release(self, folder: Path) -> None:
        """Let go, and remove the lock's file from ``folder``, where its folder is by now."""
        with suppress(OSError):
            (folder / LOCK_NAME).unlink()
        self._lock.close()


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
