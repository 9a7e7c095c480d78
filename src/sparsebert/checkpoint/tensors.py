"""Tensors of one or several safetensors files as read-only views of the mapped files.

Nothing is copied: a tensor takes up memory only once it is read, and processes that open the same
model share that memory. The safetensors library validates each file (header, offsets, no gaps, no
overlaps) before any of it is mapped.

A process depends on the files that it maps: if one is truncated, touching the missing part ends the
process (SIGBUS), and anything written into it changes answers. All steps of sparsebert put a new
file in place of the old one, which stays intact for the processes that have it mapped. A process
that must survive whatever others do to its files can copy them instead.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from sparsebert.checkpoint.dtypes import Array, numpy_type
from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.json_files import plain_file, read_object
from sparsebert.errors import CheckpointError, reason_of

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
PACKED_NAME = "packed.safetensors"
# If one of the dimensions is 0, the format allows larger shapes, but numpy does not.
_MOST_DIMENSIONS, _LARGEST = 8, 1 << 40


@dataclass(frozen=True)
class TensorSpec:
    """Name, safetensors type ("F32", "BF16", "I64", ...) and shape of a tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class TensorPart(NamedTuple):
    """Part number ``place``, from 0, of the ``total`` equal parts of the rows of ``stored``."""

    stored: str
    place: int
    total: int

    def of(self, rows: Any) -> Any:
        """The part of an array or tensor, as a view."""
        if self.total == 1:
            return rows
        size = len(rows) // self.total
        return rows[self.place * size : (self.place + 1) * size]


@dataclass(frozen=True)
class _StoredTensor:
    spec: TensorSpec
    path: Path
    raw: Array  # this tensor's bytes in the mapped file


def shards_by_tensor(index: Path) -> dict[str, Path]:
    """The file of each tensor, as an index beside these files says.

    Raises CheckpointError for an index without them, and for a file that is missing or elsewhere.
    """
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no 'weight_map' from tensor names to files.")
    shards = {name: plain_file(index.parent, file, index) for name, file in weight_map.items()}
    for path in sorted(set(shards.values())):
        if not has_file(path):
            raise CheckpointError(
                f"{path} is missing, although {index.name} names it: download the model again."
            )
    return shards


class TensorFiles(Mapping[str, Array]):
    """Tensors by their names in the files. bfloat16 is given as raw 16-bit words (see `spec`).

    With ``copied``, the files are read into memory instead of mapped. ``header`` is that of the
    last file, including the length in front of it. Raises CheckpointError, naming the file, for
    anything that is not a valid safetensors file.
    """

    def __init__(self, paths: list[Path], *, copied: bool = False) -> None:
        self.paths = tuple(paths)
        self.metadata: dict[str, str] = {}
        self.header: Array = np.empty(0, np.uint8)
        self._stored: dict[str, _StoredTensor] = {}
        for path in paths:
            data = _open_file(path, copied)
            self.header = data[: 8 + int.from_bytes(data[:8].tobytes(), "little")]
            for stored in _tensors_of(path, data, self.header, self.metadata):
                if stored.spec.name in self._stored:
                    raise CheckpointError(
                        f"{path}: tensor '{stored.spec.name}' also appears in another file."
                    )
                self._stored[stored.spec.name] = stored

    @classmethod
    def of_folder(cls, folder: Path, *, copied: bool = False) -> TensorFiles:
        """The weights of a folder: model.safetensors, or the shards that its index names."""
        if has_file(folder / WEIGHTS_NAME):
            return cls([folder / WEIGHTS_NAME], copied=copied)
        shards = shards_by_tensor(folder / INDEX_NAME)
        tensors = cls(sorted(set(shards.values())), copied=copied)
        for name, path in shards.items():
            if name not in tensors or tensors._stored[name].path != path:
                raise CheckpointError(
                    f"{path} lacks tensor '{name}', which {INDEX_NAME} places there: "
                    "download the model again."
                )
        return tensors

    def divided(self, parts: Mapping[str, TensorPart]) -> TensorFiles:
        """Parts of the tensors by new names, as views of the same files."""
        found = TensorFiles([])
        found.paths, found.metadata = self.paths, self.metadata
        for name, part in parts.items():
            whole = self._stored[part.stored]
            shape = whole.spec.shape
            if part.total > 1:
                shape = (shape[0] // part.total, *shape[1:])
            spec = TensorSpec(name, whole.spec.dtype, shape)
            found._stored[name] = _StoredTensor(spec, whole.path, part.of(whole.raw))
        return found

    def spec(self, name: str) -> TensorSpec:
        """Type and shape without touching the data."""
        return self._stored[name].spec

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return {name: stored.spec.shape for name, stored in self._stored.items()}

    def raw(self, name: str) -> Array:
        """A tensor's bytes, uint8 ``[bytes]``."""
        return self._stored[name].raw

    @property
    def nbytes(self) -> int:
        """Total bytes of all tensors, as stored."""
        return sum(stored.raw.nbytes for stored in self._stored.values())

    def __getitem__(self, name: str) -> Array:
        stored = self._stored[name]
        known = numpy_type(stored.spec.dtype)
        if known is None:
            return stored.raw
        view = stored.raw.view(known)
        if not view.flags.aligned:
            # Native code relies on alignment, but not every writer aligns tensors: make a copy.
            view = view.copy()
            view.flags.writeable = False
        return view.reshape(stored.spec.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def _open_file(path: Path, copied: bool) -> Array:
    """The bytes of one validated safetensors file: mapped, or a copy that is aligned to a page."""
    try:
        with safe_open(path, framework="np"):  # lets the library validate the whole file
            pass
        with path.open("rb") as file:
            if not copied:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                return np.frombuffer(mapped, np.uint8)
            size = os.fstat(file.fileno()).st_size
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if file.readinto(memory) != size:
                raise OSError("it was truncated while it was being read")
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is not a valid safetensors file ({reason_of(error)}): it may be truncated or "
            "damaged; download or write it again."
        ) from error
    data = np.frombuffer(memory, np.uint8)
    data.flags.writeable = False
    return data


def _tensors_of(
    path: Path, data: Array, header: Array, metadata: dict[str, str]
) -> list[_StoredTensor]:
    """The tensors of one file; its ``__metadata__`` is added to ``metadata``."""
    entries: dict[str, Any] = json.loads(header[8:].tobytes())
    metadata.update(entries.pop("__metadata__", None) or {})
    begin = header.size
    found = []
    for name, entry in entries.items():
        start, end = (begin + offset for offset in entry["data_offsets"])
        if end > data.size:  # only if the file shrank since it was validated
            raise CheckpointError(f"{path} changed while it was being read.")
        if len(entry["shape"]) > _MOST_DIMENSIONS or max(entry["shape"], default=0) > _LARGEST:
            raise CheckpointError(
                f"{path}: tensor '{name}' has {len(entry['shape'])} dimensions of up to "
                f"{max(entry['shape'])}; at most {_MOST_DIMENSIONS} of up to {_LARGEST} are "
                "supported."
            )
        spec = TensorSpec(name, str(entry["dtype"]), tuple(entry["shape"]))
        found.append(_StoredTensor(spec, path, data[start:end]))
    return found
