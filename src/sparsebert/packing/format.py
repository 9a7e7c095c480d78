"""packed.safetensors: which tensors are compressed, and how a hostile file is told from ours.

A pruned matrix NAME is stored as two tensors, ``NAME.values`` and ``NAME.bits`` (see
`patterns.Compressed`); every other tensor keeps its own name, and all names are the source's, so
that unpacking is exact. The file's ``__metadata__`` has one key of ours, "sparsebert":

    {"format_version": 1, "dtype": "fp32",
     "compressed": {NAME: {"shape": [rows, columns], "pattern": "1:2"}}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparsebert.checkpoint.dtypes import WEIGHT_TYPES
from sparsebert.checkpoint.tensors import TensorFiles
from sparsebert.errors import CheckpointError, PatternError
from sparsebert.packing.dtypes import VALUE_TYPES
from sparsebert.patterns import Compressed, Pattern, check_compressed

METADATA_KEY = "sparsebert"
FORMAT_VERSION = 1
_LARGEST = 1 << 24  # rows or columns; keeps products far from overflow


@dataclass(frozen=True)
class CompressedEntry:
    """Shape and pattern of a matrix that is stored compressed."""

    shape: tuple[int, int]
    pattern: Pattern


def values_name(name: str) -> str:
    """Name of the tensor with a compressed matrix's kept values."""
    return f"{name}.values"


def bits_name(name: str) -> str:
    """Name of the tensor that says where they belong."""
    return f"{name}.bits"


def format_metadata(dtype: str, entries: Mapping[str, CompressedEntry]) -> dict[str, str]:
    """The ``__metadata__`` entry of a packed file."""
    document = {
        "format_version": FORMAT_VERSION,
        "dtype": dtype,
        "compressed": {
            name: {"shape": list(entry.shape), "pattern": str(entry.pattern)}
            for name, entry in entries.items()
        },
    }
    return {METADATA_KEY: json.dumps(document, separators=(",", ":"))}


@dataclass(frozen=True, eq=False)
class PackedFile:
    """An open packed file, its metadata held against its tensors.

    ``compressed`` and ``plain`` are keyed by the source's tensor names.
    """

    path: Path
    tensors: TensorFiles
    dtype: str
    compressed: dict[str, CompressedEntry]
    plain: tuple[str, ...]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor as it was before packing."""
        entry = self.compressed.get(name)
        return self.tensors.spec(name).shape if entry is None else entry.shape

    def value_dtype(self, name: str) -> str:
        """Safetensors type of a tensor's values."""
        stored = values_name(name) if name in self.compressed else name
        return self.tensors.spec(stored).dtype

    def matrix(self, name: str) -> Compressed:
        """A compressed matrix as views of the file; CheckpointError if its bits are not ours."""
        entry = self.compressed[name]
        packed = Compressed(
            entry.pattern,
            entry.shape[1],
            self.tensors[values_name(name)],
            self.tensors[bits_name(name)],
        )
        try:
            if packed.rows != entry.shape[0]:
                raise PatternError(f"it has {packed.rows} rows, not {entry.shape[0]}.")
            check_compressed(packed)
        except PatternError as error:
            raise CheckpointError(f"{self.path}: tensor '{name}' is damaged: {error}") from error
        return packed


def open_packed_file(path: Path) -> PackedFile:
    """Open packed.safetensors and check everything in its metadata; CheckpointError if it lies."""
    tensors = TensorFiles([path])
    dtype, entries = _parse_metadata(tensors.metadata.get(METADATA_KEY), path)
    parts = {part(name): name for name in entries for part in (values_name, bits_name)}
    if len(parts) != 2 * len(entries):
        raise CheckpointError(f"{path}: two compressed tensors share their parts.")
    for name, entry in entries.items():
        if name in tensors:
            raise CheckpointError(f"{path}: tensor '{name}' is stored both plain and compressed.")
        for part in (values_name(name), bits_name(name)):
            if part not in tensors:
                raise CheckpointError(f"{path} lacks '{part}' of the compressed tensor '{name}'.")
        values, bits = tensors.spec(values_name(name)), tensors.spec(bits_name(name))
        if values.dtype not in WEIGHT_TYPES or len(values.shape) != 3 or len(bits.shape) != 2:
            raise CheckpointError(f"{path}: '{name}' does not have the parts of a {entry.pattern}.")
        if bits.dtype not in ("U32", "U64"):
            raise CheckpointError(f"{path}: the bits of '{name}' are stored as {bits.dtype}.")
    plain = tuple(name for name in tensors if name not in parts)
    return PackedFile(path, tensors, dtype, entries, plain)


def _parse_metadata(text: str | None, path: Path) -> tuple[str, dict[str, CompressedEntry]]:
    if text is None:
        raise CheckpointError(f"{path} is not a packed file: it lacks sparsebert's metadata.")
    broken = CheckpointError(f"{path}: sparsebert's metadata is damaged; pack the model again.")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise broken from error
    if not isinstance(document, dict) or type(document.get("format_version")) is not int:
        raise broken
    version = document["format_version"]
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}; this sparsebert reads {FORMAT_VERSION}. Install "
            "a newer one, or pack the model again."
        )
    dtype, listed = document.get("dtype"), document.get("compressed")
    if not isinstance(dtype, str) or not isinstance(listed, dict):
        raise broken
    if dtype not in VALUE_TYPES:
        raise CheckpointError(
            f"{path} stores its values as '{dtype[:40]}', which this sparsebert does not know; it "
            f"knows {', '.join(VALUE_TYPES)}."
        )
    entries = {}
    for name, entry in listed.items():
        if not isinstance(entry, dict):
            raise broken
        shape, pattern = entry.get("shape"), entry.get("pattern")
        if (
            not isinstance(shape, list)
            or len(shape) != 2
            or not all(type(size) is int and 1 <= size <= _LARGEST for size in shape)
            or not isinstance(pattern, str)
        ):
            raise broken
        try:
            entries[name] = CompressedEntry((shape[0], shape[1]), Pattern.parse(pattern))
        except PatternError as error:
            raise broken from error
    return dtype, entries
