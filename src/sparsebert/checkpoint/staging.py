"""Write a folder as a whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sparsebert.checkpoint.atomic import (
    FolderLock,
    exchange,
    siblings,
    sigterm_interrupts,
    sync_all,
    sync_names,
)
from sparsebert.errors import CheckpointError, OutputError, reason_of


@contextmanager
def staged_folder(
    out: str | Path, *, force: bool, source: str | Path | None = None
) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``out`` that becomes ``out`` when the block ends.

    If the block fails or is interrupted (by SIGTERM as by Ctrl-C), the temporary folder is removed,
    and what was at ``out`` is untouched; a temporary folder that a killed process left behind is
    removed by the next call. With ``force``, an existing model folder (or an empty one) is
    replaced, but only once the new one is complete. ``source``, if given, may neither be ``out``
    nor lie inside it.

    Raises OutputError if ``out`` exists (without ``force``), is not a folder that sparsebert would
    replace, or cannot be written (disk full, no permission), and CheckpointError if a file of
    ``source`` can no longer be read.
    """
    target = check_output(out, force=force, source=source)
    with _reading(source), writing(out), sigterm_interrupts(), made_parents(target):
        _remove_abandoned(target)
        staging, lock = _make_staging(target)
        try:
            yield staging
            sync_all(staging)
            if not force and target.exists():  # another process was quicker
                raise OutputError(
                    f"{out} was created in the meantime and is not replaced: name another folder, "
                    "or pass --force."
                )
            _swap(staging, target)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        finally:
            lock.release(target)


@contextmanager
def writing(out: str | Path) -> Iterator[None]:
    """Turn an OSError in the block that comes from writing ``out`` into an OutputError.

    Such an error names ``out``, a hidden temporary file or folder beside it, a folder above it, or
    (if the disk is full) no file at all.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or not _is_of_writing(error, Path(os.path.realpath(out))):
            raise
        raise OutputError(
            f"{out} could not be written: {error.strerror or error}. What was there before is "
            "untouched."
        ) from error


@contextmanager
def _reading(source: str | Path | None) -> Iterator[None]:
    """Turn an OSError in the block that comes from reading ``source`` into a CheckpointError."""
    try:
        yield
    except OSError as error:
        named = error.filename if isinstance(error.filename, str) else None
        if source is None or named is None:
            raise
        if not Path(os.path.realpath(named)).is_relative_to(os.path.realpath(source)):
            raise
        raise CheckpointError(f"{named} cannot be read: {error.strerror or error}.") from error


@contextmanager
def made_parents(path: Path) -> Iterator[None]:
    """Create missing folders above ``path``; if the block fails, remove those that are empty."""
    missing = []
    folder = path.parent
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    try:
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
        yield
    except BaseException:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        raise


def check_output(out: str | Path, *, force: bool, source: str | Path | None = None) -> Path:
    """The real path of ``out``, after checking that `staged_folder` may write it.

    Steps call this before their long work begins. Raises OutputError as `staged_folder` does.
    """
    # A link is followed, so that the folder it points to is replaced and not the link.
    try:
        target = Path(os.path.realpath(out))
        is_there = os.path.lexists(target)
    except (OSError, ValueError) as error:  # such as half of a surrogate pair, or a NUL
        raise OutputError(f"{out} is not a valid folder name: {reason_of(error)}.") from error
    if source is not None:
        origin = Path(os.path.realpath(source))
        if origin == target:
            raise OutputError(f"{out} is the model itself: name another output folder.")
        if origin.is_relative_to(target):
            raise OutputError(
                f"{out} contains the model that is being read: name another output folder."
            )
    if not is_there:
        return target
    if not target.is_dir():
        raise OutputError(f"{out} exists and is not a folder: name another output folder.")
    if not force:
        raise OutputError(f"{out} exists: remove it, name another folder, or pass --force.")
    if Path.cwd().is_relative_to(target):
        raise OutputError(f"{out} contains the current directory, so it is not replaced.")
    if any(target.iterdir()) and not (target / "config.json").is_file():
        # --force is for replacing models; it must never delete a folder of anything else.
        raise OutputError(f"{out} is not a model folder, so it is not replaced even with --force.")
    return target


def remove_whole(folder: Path, target: Path) -> None:
    """Remove a folder beside ``target`` so that it is never found incomplete under its own name.

    If the process is killed meanwhile, the next `staged_folder` of ``target`` removes the rest.
    """
    aside = _aside(target)
    with suppress(OSError):
        os.rename(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)


def _aside(target: Path) -> Path:
    """A name for a folder to be removed; `_swap` removes what an earlier process left there."""
    return target.with_name(f".{target.name}.old-{secrets.token_hex(4)}")


def check_disk(out: Path, needed: int, work: str) -> None:
    """Raise OutputError unless the disk of ``out`` has the ``needed`` bytes free for ``work``."""
    place = next(folder for folder in out.resolve().parents if folder.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise OutputError(
            f"{work} takes about {size_text(needed)} of disk space beside {out}, but only "
            f"{size_text(free)} are free in {place}: free some space, or name an output folder on "
            "another disk."
        )


def size_text(count: int) -> str:
    """A number of bytes, in MB or GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _make_staging(target: Path) -> tuple[Path, FolderLock]:
    """Create a folder with a unique name beside ``target``, locked while it is in use."""
    while True:
        staging = target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")
        staging.mkdir()
        try:
            lock = FolderLock.take(staging)
        except FileNotFoundError:  # removed as abandoned before it was locked
            continue
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        if lock is not None:
            return staging, lock


def _remove_abandoned(target: Path) -> None:
    """Remove what killed processes left of their work on ``target``: folders without a lock."""
    for folder in siblings(target, "partial"):
        with suppress(OSError):  # not ours to write, or gone by now
            lock = FolderLock.take(folder)
            if lock is not None:
                if lock.held:
                    shutil.rmtree(folder, ignore_errors=True)
                lock.release(folder)


def _swap(staging: Path, target: Path) -> None:
    """Give the finished folder its name: readers of ``target`` find the old one or the new one.

    If names cannot be exchanged in one step, there is neither for a moment. Should the machine stop
    right then, the old folder remains as ``.NAME.old-...`` until another one is finished.
    """
    if not target.exists():
        os.rename(staging, target)
    elif not exchange(staging, target):
        old = _aside(target)
        os.rename(target, old)
        try:
            os.rename(staging, target)
        except BaseException:
            os.rename(old, target)
            raise
    sync_names(target.parent)
    for old in (staging, *siblings(target, "old")):
        shutil.rmtree(old, ignore_errors=True)


def _is_of_writing(error: OSError, target: Path) -> bool:
    names = [
        Path(name) for name in (error.filename, error.filename2) if isinstance(name, str | Path)
    ]
    hidden = str(target.with_name(f".{target.name}."))
    return not names or any(
        name.is_relative_to(target)
        or target.is_relative_to(name)
        or os.fspath(name).startswith(hidden)
        for name in names
    )
