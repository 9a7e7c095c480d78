"""The input files: a path, a glob pattern or a URI, resolved to a sorted list.

URIs are those of pyarrow's file systems: s3://, gs://, abfs://, hdfs://, file://.
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
COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4")  # for JSON lines; pyarrow detects them by the ending
_WILD = "*?["


@dataclass(frozen=True)
class Location:
    """A path in one of pyarrow's file systems; local paths are absolute."""

    filesystem: FileSystem
    path: str

    @classmethod
    def of(cls, source: str | Path) -> Location:
        """The location of a path or URI; it need not exist. DataError for an unsupported URI.

        A relative path is resolved in this process, as workers have other working directories.
        """
        import pyarrow as pa
        from pyarrow.fs import FileSystem, LocalFileSystem

        text = str(source)
        if "://" not in text:
            return cls(LocalFileSystem(), str(Path(text).absolute()))
        try:
            return cls(*FileSystem.from_uri(text))
        except (pa.ArrowException, OSError, ValueError) as fault:
            raise DataError(f"{text} cannot be opened: {_first_line(fault)}") from fault

    @property
    def is_local(self) -> bool:
        """Whether it is in the local file system (which other machines may share)."""
        return bool(self.filesystem.type_name == "local")

    def child(self, name: str) -> Location:
        """A path below this one."""
        return Location(self.filesystem, f"{self.path.rstrip('/')}/{name}")


@dataclass(frozen=True)
class InputFile:
    """One file to read. ``name`` is its path relative to the input, with forward slashes."""

    path: str
    name: str
    nbytes: int

    @property
    def is_parquet(self) -> bool:
        """Whether it is Parquet rather than JSON lines."""
        return self.name.lower().endswith(PARQUET)

    @property
    def is_compressed(self) -> bool:
        """Whether it is compressed as a whole, so that it can only be read from the start."""
        return self.name.lower().endswith(COMPRESSIONS)

    def changed(self) -> DataError:
        """The error for a file that is not as it was when the job began."""
        return DataError(
            f"{self.name} has changed since the job began: start it again in another folder."
        )


@dataclass(frozen=True)
class InputFiles:
    """The files of an input, sorted by name; ``folder`` if the input is a folder."""

    filesystem: FileSystem
    files: tuple[InputFile, ...]
    folder: str | None

    @property
    def is_local(self) -> bool:
        """Whether they are in the local file system (which other machines may share)."""
        return bool(self.filesystem.type_name == "local")

    def overlaps(self, location: Location) -> bool:
        """Whether a folder is inside the input or contains files of it.

        Output written there would be read as input the next time, or input be deleted with it.
        """
        if not self.filesystem.equals(location.filesystem):
            return False
        # Resolve symbolic links and "..".
        real = os.path.realpath if location.is_local else str
        below = f"{real(location.path)}/"
        parents = {str(PurePosixPath(each.path).parent) for each in self.files}
        if any(f"{real(parent)}/".startswith(below) for parent in parents):
            return True
        return self.folder is not None and below.startswith(f"{real(self.folder)}/")


def find_input_files(source: str | Path) -> InputFiles:
    """The files of a folder (recursively), of a pattern such as ``data/*.parquet``, or one file.

    Files and folders whose names begin with ``.`` or ``_`` are ignored, as by Hadoop, Spark and
    pyarrow. Raises DataError if there are none, or one is of an unknown type.
    """
    from pyarrow.fs import FileSelector, FileType

    location = Location.of(source)
    try:
        info = location.filesystem.get_file_info(location.path)
        if info.type is FileType.Directory:
            found = location.filesystem.get_file_info(FileSelector(location.path, recursive=True))
            root = location.path.rstrip("/")
        elif info.type is FileType.File:
            found, root = [info], str(PurePosixPath(location.path).parent)
        else:
            found, root = _matching(source, location)
    except OSError as fault:
        raise DataError(f"{source} cannot be listed: {_first_line(fault)}") from fault
    files = [
        InputFile(each.path, str(PurePosixPath(each.path).relative_to(root)), each.size)
        for each in found
        if each.type is FileType.File
    ]
    files = sorted((each for each in files if not _hidden(each.name)), key=lambda each: each.name)
    for each in files:
        if not _known(each.name):
            raise DataError(
                f"{source} contains {each.name}, which is neither Parquet ({PARQUET}) nor JSON "
                f"lines ({', '.join(JSON_LINES)}, also with {', '.join(COMPRESSIONS)}): select the "
                f"files to read with a pattern, such as '{source}/*{PARQUET}'."
            )
    if not files:
        raise DataError(f"{source} contains no Parquet or JSON lines files.")
    folder = root if info.type is FileType.Directory else None
    return InputFiles(location.filesystem, tuple(files), folder)


def _matching(source: str | Path, location: Location) -> tuple[list[object], str]:
    """The files that a pattern matches, and the folder before its first wildcard."""
    wild = [mark for mark in _WILD if mark in location.path]
    if wild and not location.is_local:
        raise DataError(
            f"{source}: patterns are only supported for local paths; name a folder or a file."
        )
    if not wild:
        raise DataError(f"{source} does not exist: name a file, a folder or a pattern of paths.")
    paths = sorted(glob.glob(location.path, recursive=True))
    fixed = location.path[: min(location.path.index(mark) for mark in wild)]
    return location.filesystem.get_file_info(paths), fixed.rpartition("/")[0] or "/"


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
