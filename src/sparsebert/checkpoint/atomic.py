"""Building blocks of atomic writing: replacing files, exchanging names, locks, SIGTERM.

`sparsebert.checkpoint.staging` applies them to folders. Locks are those of the operating system, on
a file (for a folder, on a file inside it). A lock is released when its process ends, however it
ends, so locks distinguish work in progress from what a killed process left behind. On a file system
without locks, none are taken, and nothing is treated as abandoned.
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
    """Yield a temporary path beside ``path`` for the block to write; then rename it to ``path``.

    The temporary file exists already, empty. Readers of ``path`` find either the old file or the
    new one. If the block fails or is interrupted, the temporary file is removed and ``path`` is
    unchanged; what a killed process left behind is removed by the next call. Raises OSError, as
    writing does.
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
    """Create a file with a unique name beside ``path``, locked while it is being written."""
    while True:
        temporary = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
        lock = Lock.take(temporary, os.O_CREAT | os.O_EXCL)
        if lock is not None:  # else it was removed as abandoned before it was locked
            return temporary, lock


def _remove_abandoned(path: Path) -> None:
    for file in siblings(path, "partial"):
        with suppress(OSError):  # not ours to write, a folder, or gone by now
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
    """Flush a file to disk before it gets its name: a crash must not leave an empty file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_names(folder: Path) -> None:
    """Flush the names in a folder to disk, if its file system supports that."""
    with suppress(OSError):
        sync(folder)


def sync_all(folder: Path) -> None:
    """Flush all files and names in a folder to disk, before the folder gets its own name."""
    for path in folder.rglob("*"):
        if path.is_file():
            sync(path)
        else:
            sync_names(path)
    sync_names(folder)


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step; False if the system does not support it."""
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
    """A lock on a file, made by `take`. ``held`` is False if the file system has no locks."""

    def __init__(self, handle: int, held: bool) -> None:
        self._handle = handle
        self.held = held

    @classmethod
    def take(cls, file: Path, flags: int = 0) -> Lock | None:
        """Lock a file, opened with ``flags``; None if it is locked already, even by this process.

        Also None if the file has been removed or recreated in the meantime. Raises OSError if it
        cannot be opened for writing.
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
        """Release the lock."""
        os.close(self._handle)


class FolderLock:
    """A lock on a folder, made by `take`. ``held`` is False if the file system has no locks."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self.held = lock.held

    @classmethod
    def take(cls, folder: Path) -> FolderLock | None:
        """Lock a folder; None if it is locked already, by another process or by this one.

        Raises OSError if the folder does not exist or cannot be written.
        """
        file = folder / LOCK_NAME
        while True:
            lock = Lock.take(file, os.O_CREAT)
            if lock is not None:
                return cls(lock)
            if file.exists():  # else it was released, or the folder was recreated
                return None

    def release(self, folder: Path) -> None:
        """Release the lock and remove its file; ``folder`` is the folder's current path."""
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
    """In the block, SIGTERM raises KeyboardInterrupt, so that temporary files are removed.

    Does nothing outside the main thread, the only one to which Python delivers signals, or if the
    program handles SIGTERM itself.
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
