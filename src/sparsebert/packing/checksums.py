"""checksums.json of a packed folder: checksums of its files as they were when it was packed.

CRC-32 detects every change within 32 adjacent bits and misses one in four billion of the others. It
protects against faulty disks and memory, interrupted copies and forgotten edits, not against
attackers: whoever writes a hostile folder also writes its checksums, as they would any other
digest. It was chosen because all files are read at each load: for BERT-base in int8 it takes 18 ms
on two cores, SHA-256 37 ms with hardware instructions and several times that without.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.json_files import read_object, replace_json
from sparsebert.checkpoint.model_files import CHECKSUMS_NAME, files_of_answers
from sparsebert.checkpoint.tensors import PACKED_NAME, TensorFiles
from sparsebert.engine import default_threads
from sparsebert.errors import CheckpointError, OutputError

FORMAT_VERSION = 1
_CHECKSUM = re.compile("[0-9a-f]{8}")
_CHUNK = 1 << 20  # bytes read at a time
_MOST_THREADS = 4  # enough to be limited by memory bandwidth
_BYTES_PER_THREAD = 4 << 20  # 2 ms of work, many times what it takes to start a thread


@dataclass(frozen=True)
class Checksums:
    """CRC-32 of every file that answers depend on, by its path in the folder; for
    packed.safetensors, of its header and each tensor. ``answers`` are those that the model gave
    then, see `packing.answers`.
    """

    files: Mapping[str, str]
    header: str
    tensors: Mapping[str, str]
    answers: Mapping[str, Any]

    def check_files(self, folder: Path) -> None:
        """CheckpointError, naming the file, unless all are unchanged."""
        there = _covered_files(folder)
        for name, path in there.items():
            if name in self.files and _of_file(path) != self.files[name]:
                raise _changed(folder, f"{path} has changed since the model was packed")
        for name in self.files:
            if name not in there:
                raise _changed(
                    folder, f"{folder / name} is missing, but was there when the model was packed"
                )

    def check_tensors(self, folder: Path, tensors: TensorFiles) -> None:
        """The same for packed.safetensors, naming the tensor; all of it is read."""
        path = folder / PACKED_NAME
        if _of_header(tensors) != self.header:
            raise _changed(
                folder, f"{path} is damaged: its header has changed since the model was packed"
            )
        now = _of_tensors(tensors)
        for name, checksum in self.tensors.items():
            if now.get(name) != checksum:
                raise _changed(
                    folder,
                    f"{path} is damaged: tensor '{name}' has changed since the model was packed",
                )


def read_checksums(folder: Path) -> Checksums | None:
    """The checksums of a packed folder; None if it was packed before there were any."""
    path = folder / CHECKSUMS_NAME
    if not has_file(path):
        return None
    document = read_object(path)
    version = document.get("format_version")
    if type(version) is int and version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, but this version of sparsebert reads only "
            f"{FORMAT_VERSION}: install a newer one."
        )
    header, files, tensors, answers = (
        document.get(key) for key in ("header", "files", "tensors", "answers")
    )
    if (
        version != FORMAT_VERSION
        or not isinstance(header, str)
        or not isinstance(files, dict)
        or not isinstance(tensors, dict)
        or not isinstance(answers, dict)
        or not all(
            isinstance(each, str) and _CHECKSUM.fullmatch(each)
            for each in (header, *files.values(), *tensors.values())
        )
    ):
        raise CheckpointError(f"{path} is damaged: fetch or pack the model again.")
    return Checksums(files, header, tensors, answers)


def write_checksums(folder: Path, tensors: TensorFiles, answers: Mapping[str, Any]) -> None:
    """Write the checksums of a folder as it is now, atomically. Raises OutputError."""
    files = {name: _of_file(path) for name, path in _covered_files(folder).items()}
    document = {
        "format_version": FORMAT_VERSION,
        "files": files,
        "header": _of_header(tensors),
        "tensors": _of_tensors(tensors),
        "answers": dict(answers),
    }
    try:
        replace_json(folder / CHECKSUMS_NAME, document)
    except OSError as error:
        raise OutputError(
            f"{folder / CHECKSUMS_NAME} could not be written: {error.strerror or error}."
        ) from error


def _covered_files(folder: Path) -> dict[str, Path]:
    """What answers depend on besides packed.safetensors, whose tensors have their own."""
    return {name: path for name, path in files_of_answers(folder).items() if name != PACKED_NAME}


def _of_file(path: Path) -> str:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return _hexadecimal(checksum)


def _of_header(tensors: TensorFiles) -> str:
    return _hexadecimal(zlib.crc32(tensors.header.data))


def _of_tensors(tensors: TensorFiles) -> dict[str, str]:
    """Computed by several threads, since zlib releases the GIL; the largest tensors first."""
    raw = {name: tensors.raw(name) for name in tensors}
    names = sorted(raw, key=lambda name: -raw[name].nbytes)
    threads = min(default_threads(), _MOST_THREADS, 1 + tensors.nbytes // _BYTES_PER_THREAD)

    def checksum(name: str) -> int:
        return zlib.crc32(raw[name].data)

    if threads == 1:
        found = {name: checksum(name) for name in names}
    else:
        with ThreadPoolExecutor(threads) as pool:
            found = dict(zip(names, pool.map(checksum, names), strict=True))
    return {name: _hexadecimal(found[name]) for name in raw}


def _hexadecimal(checksum: int) -> str:
    return f"{checksum:08x}"


def _changed(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{what}: fetch or pack it again; if you changed it on purpose, run `sparsebert inspect "
        f"{folder} --accept`."
    )
