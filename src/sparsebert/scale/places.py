"""Where files lie: a path, a pattern of paths or a URL to files in one fixed order.

URLs are those that pyarrow's file systems read and write: s3://, gs://, abfs://, hdfs://, file://.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from sparsebert.errors import DataError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

PARQUET = ".parquet"
JSON_LINES = (".jsonl", ".ndjson", ".json")
COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4")  # of JSON lines; pyarrow knows them by their ending
_WILD = "*?["


@dataclass(frozen=True)
class Place:
    """A path in one of pyarrow's file systems; local paths are absolute."""

    filesystem: FileSystem
    path: str

    @classmethod
    def of(cls, given: str | Path) -> Place:
        """The place that a path or URL names; it need not exist. DataError for a URL nobody reads.

        A relative path is one of this process: other machines may stand elsewhere.
        """
        import pyarrow as pa
        from pyarrow.fs import FileSystem, LocalFileSystem

        text = str(given)
        if "://" not in text:
            return cls(LocalFileSystem(), str(Path(text).absolute()))
        try:
            return cls(*FileSystem.from_uri(text))
        except (pa.ArrowException, OSError, ValueError) as fault:
            raise DataError(f"{text} cannot be opened: {_first_line(fault)}") from fault

    @property
    def is_local(self) -> bool:
        """Whether it lies in this machine's own file tree (which others may share)."""
        return bool(self.filesystem.type_name == "local")

    def child(self, name: str) -> Place:
        """A path below this one."""
        return Place(self.filesystem, f"{self.path.rstrip('/')}/{name}")


@dataclass(frozen=True)
class InputFile:
    """One file to read. ``name`` is its path below what the user named, with / between."""

    path: str
    name: str
    nbytes: int

    @property
    def is_parquet(self) -> bool:
        """Parquet; else it is JSON lines."""
        return self.name.lower().endswith(PARQUET)

    @property
    def is_compressed(self) -> bool:
        """Whether it can only be read from its beginning."""
        return self.name.lower().endswith(COMPRESSIONS)


@dataclass(frozen=True)
class Input:
    """The files that the user named, in the order of their names; ``folder`` if it was one."""

    filesystem: FileSystem
    files: tuple[InputFile, ...]
    folder: str | None

    def overlaps(self, place: Place) -> bool:
        """Whether a folder lies in the input, or holds files of it.

        What is written there would be read as input the next time, or what is removed there be it.
        """
        if not self.filesystem.equals(place.filesystem):
            return False
        # Links and .. lead elsewhere than they look.
        real = os.path.realpath if place.is_local else str
        below = f"{real(place.path)}/"
        parents = {str(PurePosixPath(each.path).parent) for each in self.files}
        if any(f"{real(parent)}/".startswith(below) for parent in parents):
            return True
        return self.folder is not None and below.startswith(f"{real(self.folder)}/")


def find_input(given: str | Path) -> Input:
    """The files of a folder (and its sub-folders), of a pattern such as ``data/*.parquet``, or one.

    Files and folders whose names begin with ``.`` or ``_`` are passed over, as Hadoop, Spark and
    pyarrow do. Raises DataError if there are none, or some of them are of no known type.
    """
    from pyarrow.fs import FileSelector, FileType

    place = Place.of(given)
    try:
        info = place.filesystem.get_file_info(place.path)
        if info.type is FileType.Directory:
            found = place.filesystem.get_file_info(FileSelector(place.path, recursive=True))
            root = place.path.rstrip("/")
        elif info.type is FileType.File:
            found, root = [info], str(PurePosixPath(place.path).parent)
        else:
            found, root = _matching(given, place)
    except OSError as fault:
        raise DataError(f"{given} cannot be listed: {_first_line(fault)}") from fault
    files = [
        InputFile(each.path, str(PurePosixPath(each.path).relative_to(root)), each.size)
        for each in found
        if each.type is FileType.File
    ]
    files = sorted((each for each in files if not _hidden(each.name)), key=lambda each: each.name)
    for each in files:
        if not _known(each.name):
            raise DataError(
                f"{given} holds {each.name}, which is neither Parquet ({PARQUET}) nor JSON lines "
                f"({', '.join(JSON_LINES)}, also with {', '.join(COMPRESSIONS)}): name the files "
                f"to read by a pattern, such as '{given}/*{PARQUET}'."
            )
    if not files:
        raise DataError(f"{given} holds no Parquet or JSON lines files.")
    folder = root if info.type is FileType.Directory else None
    return Input(place.filesystem, tuple(files), folder)


def _matching(given: str | Path, place: Place) -> tuple[list[object], str]:
    """What a pattern matches, and the folder before its first wildcard."""
    wild = [mark for mark in _WILD if mark in place.path]
    if wild and not place.is_local:
        raise DataError(f"{given}: patterns are for local paths; name a folder or a file.")
    if not wild:
        raise DataError(f"{given} does not exist: name a file, a folder or a pattern of paths.")
    paths = sorted(glob.glob(place.path, recursive=True))
    fixed = place.path[: min(place.path.index(mark) for mark in wild)]
    return place.filesystem.get_file_info(paths), fixed.rpartition("/")[0] or "/"


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _known(name: str) -> bool:
    lower = name.lower()
    for compression in COMPRESSIONS:
        if lower.endswith(compression):
            return lower.removesuffix(compression).endswith(JSON_LINES)
    return lower.endswith((PARQUET, *JSON_LINES))


def _first_line(fault: BaseException) -> str:
    return (str(fault).strip() or type(fault).__name__).splitlines()[0]
