"""Tensors of one or several safetensors files as read-only views of the mapped files.

Nothing is copied: a tensor costs memory only once it is touched, and processes that open the same
model share it. The safetensors library checks each file (header, offsets, no holes, no overlap)
before a byte of it is mapped.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from sparsebert.checkpoint.dtypes import Array, numpy_type
from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.json_files import plain_file, read_object
from sparsebert.errors import CheckpointError, reason_of

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
PACKED_NAME = "packed.safetensors"
# The format allows more, where one of the dimensions is 0. numpy does not.
_MOST_DIMENSIONS, _LARGEST = 8, 1 << 40


@dataclass(frozen=True)
class TensorSpec:
    """Name, safetensors type ("F32", "BF16", "I64", ...) and shape of a tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _StoredTensor:
    spec: TensorSpec
    path: Path
    raw: Array  # this tensor's bytes in the mapped file


class TensorFiles(Mapping[str, Array]):
    """Tensors by their name in the file. bfloat16 comes as its raw 16-bit words (see `spec`).

    Raises CheckpointError, naming the file, for anything that is not a whole safetensors file.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.paths = tuple(paths)
        self.metadata: dict[str, str] = {}
        self._stored: dict[str, _StoredTensor] = {}
        for path in paths:
            for stored in _map_file(path, self.metadata):
                if stored.spec.name in self._stored:
                    raise CheckpointError(
                        f"{path}: tensor '{stored.spec.name}' also stands in another file."
                    )
                self._stored[stored.spec.name] = stored

    @classmethod
    def of_folder(cls, folder: Path) -> TensorFiles:
        """The weights of a folder: model.safetensors, or the shards that its index names."""
        if has_file(folder / WEIGHTS_NAME):
            return cls([folder / WEIGHTS_NAME])
        index = folder / INDEX_NAME
        weight_map = read_object(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{index} has no 'weight_map' from tensor names to files.")
        shards = {name: plain_file(folder, file, index) for name, file in weight_map.items()}
        paths = sorted(set(shards.values()))
        for path in paths:
            if not has_file(path):
                raise CheckpointError(
                    f"{path} is missing, though {INDEX_NAME} names it: fetch the model again."
                )
        tensors = cls(paths)
        for name, path in shards.items():
            if name not in tensors or tensors._stored[name].path != path:
                raise CheckpointError(
                    f"{path} lacks tensor '{name}', which {INDEX_NAME} places there: "
                    "fetch the model again."
                )
        return tensors

    def divided(self, parts: Mapping[str, tuple[str, ...]]) -> TensorFiles:
        """The same tensors by other names: each under ``parts[name]``, its rows cut equally.

        Raises CheckpointError for rows that do not divide, and for two tensors of one name.
        """
        found = TensorFiles([])
        found.paths, found.metadata = self.paths, self.metadata
        for name, stored in self._stored.items():
            count, shape = len(parts[name]), stored.spec.shape
            if count > 1 and (not shape or shape[0] % count):
                raise CheckpointError(
                    f"{stored.path}: tensor '{name}' of shape {list(shape)} does not divide into "
                    f"{count}."
                )
            size = stored.raw.nbytes // count
            rows = shape if count == 1 else (shape[0] // count, *shape[1:])
            for place, part in enumerate(parts[name]):
                if part in found._stored:
                    raise CheckpointError(f"{stored.path} holds '{part}' twice.")
                spec = TensorSpec(part, stored.spec.dtype, rows)
                raw = stored.raw[place * size : (place + 1) * size]
                found._stored[part] = _StoredTensor(spec, stored.path, raw)
        return found

    def spec(self, name: str) -> TensorSpec:
        """Type and shape without touching the data."""
        return self._stored[name].spec

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, as stored."""
        return sum(stored.raw.nbytes for stored in self._stored.values())

    def __getitem__(self, name: str) -> Array:
        stored = self._stored[name]
        known = numpy_type(stored.spec.dtype)
        if known is None:
            return stored.raw
        view = stored.raw.view(known)
        if not view.flags.aligned:
            # Not every writer aligned its tensors. Native code relies on it, so give it a copy.
            view = view.copy()
            view.flags.writeable = False
        return view.reshape(stored.spec.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def _map_file(path: Path, metadata: dict[str, str]) -> list[_StoredTensor]:
    """Check and map one file; its ``__metadata__`` is added to ``metadata``."""
    try:
        with safe_open(path, framework="np"):  # the library's whole validation of the file
            pass
        with path.open("rb") as file:
            data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({reason_of(error)}): it may be truncated or "
            "damaged, fetch or write it again."
        ) from error
    length = int.from_bytes(data[:8].tobytes(), "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length].tobytes())
    metadata.update(header.pop("__metadata__", None) or {})
    begin = 8 + length
    found = []
    for name, entry in header.items():
        start, end = (begin + offset for offset in entry["data_offsets"])
        if end > data.size:  # only if the file shrank since it was validated
            raise CheckpointError(f"{path} changed while it was being read.")
        if len(entry["shape"]) > _MOST_DIMENSIONS or max(entry["shape"], default=0) > _LARGEST:
            raise CheckpointError(
                f"{path}: tensor '{name}' has {len(entry['shape'])} dimensions, the largest of "
                f"{max(entry['shape'])}, and at most {_MOST_DIMENSIONS} of {_LARGEST} are read."
            )
        spec = TensorSpec(name, str(entry["dtype"]), tuple(entry["shape"]))
        found.append(_StoredTensor(spec, path, data[start:end]))
    return found
