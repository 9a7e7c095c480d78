"""packed.safetensors: its metadata, the parts of its tensors, and their validation.

A pruned matrix NAME is stored as ``NAME.values`` and ``NAME.bits`` (see `compressed`); a quantized
one, in a file of dtype int8, as ``NAME.values``, ``NAME.scales`` and, if it is pruned,
``NAME.bits`` (see `quantized`, which describes the layouts). Every other tensor keeps its own name.
All names are the source's. The file's ``__metadata__`` has one key of ours, "sparsebert":

    {"format_version": 1, "dtype": "fp32",
     "compressed": {NAME: {"shape": [rows, columns], "pattern": "1:2"}},
     "quantized": {NAME: {"shape": [rows, columns], "layout": "pairs", "pattern": "1:2"},
                   NAME: {"shape": [rows, columns], "layout": "dense", "pattern": null}}}

"quantized" appears only in files of dtype int8. An entry whose pattern is shared by rows also has
"shared_rows", and a file with such an entry has format version 2, so that readers of version 1
refuse it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.dtypes import WEIGHT_TYPES
from sparsebert.checkpoint.json_files import parse_json
from sparsebert.checkpoint.sparsity import pattern_record, read_pattern
from sparsebert.checkpoint.tensors import TensorFiles
from sparsebert.errors import CheckpointError, PatternError
from sparsebert.packing.dtypes import VALUE_TYPES
from sparsebert.packing.forms import CompressedForm, Form, PlainForm, QuantizedForm, Weight
from sparsebert.patterns import Pattern
from sparsebert.quantized import LAYOUTS

METADATA_KEY = "sparsebert"
FORMAT_VERSION = 2
_LARGEST = 1 << 24  # rows or columns; keeps products far from overflow


def part_name(name: str, part: str) -> str:
    """Name in the file of a part of a tensor (see `Form.parts`)."""
    return f"{name}.{part}" if part else name


def format_metadata(dtype: str, forms: Mapping[str, Form]) -> dict[str, str]:
    """The ``__metadata__`` entry of a packed file; ``forms`` by the source's tensor names."""
    compressed, quantized = {}, {}
    for name, form in forms.items():
        entry = {"shape": list(form.shape), **pattern_record(form.pattern)}
        if isinstance(form, CompressedForm):
            compressed[name] = entry
        elif isinstance(form, QuantizedForm):
            quantized[name] = {**entry, "layout": form.layout.layout}
    shared = any("shared_rows" in entry for entry in [*compressed.values(), *quantized.values()])
    document: dict[str, Any] = {"format_version": 2 if shared else 1, "dtype": dtype}
    document["compressed"] = compressed
    if quantized:
        document["quantized"] = quantized
    return {METADATA_KEY: json.dumps(document, separators=(",", ":"))}


@dataclass(frozen=True, eq=False)
class PackedFile:
    """An open packed file, its metadata checked against its tensors; ``forms`` by source names."""

    path: Path
    tensors: TensorFiles
    dtype: str
    forms: dict[str, Form]

    def weight(self, name: str) -> Weight:
        """A tensor as views of the file; CheckpointError if it contradicts the metadata."""
        form = self.forms[name]
        try:
            parts = {}
            for part, wanted in form.parts().items():
                stored = part_name(name, part)
                spec = self.tensors.spec(stored)
                if (spec.dtype, spec.shape) != wanted:
                    raise PatternError(
                        f"its {part} are {spec.dtype} {list(spec.shape)}, not {wanted[0]} "
                        f"{list(wanted[1])}."
                    )
                parts[part] = self.tensors[stored]
            return form.read(parts)
        except PatternError as error:
            raise CheckpointError(f"{self.path}: tensor '{name}' is damaged: {error}") from error


def open_packed_file(tensors: TensorFiles) -> PackedFile:
    """The packed file ``tensors``, with all of its metadata checked; CheckpointError if wrong."""
    (path,) = tensors.paths
    dtype, listed = _parse_metadata(tensors.metadata.get(METADATA_KEY), path)
    forms: dict[str, Form] = {}
    owners: dict[str, str] = {}
    for name, entry in listed.items():
        if name in tensors:
            raise CheckpointError(f"{path}: tensor '{name}' is stored both plain and compressed.")
        try:
            forms[name] = form = _form(name, entry, tensors)
            parts = [part_name(name, part) for part in form.parts()]
        except PatternError as error:
            raise CheckpointError(f"{path}: tensor '{name}' is damaged: {error}") from error
        for part in parts:
            if part not in tensors:
                raise CheckpointError(f"{path} lacks '{part}', part of compressed tensor '{name}'.")
            if owners.setdefault(part, name) != name:
                raise CheckpointError(f"{path}: two compressed tensors share their parts.")
    for name in tensors:
        if name not in owners:
            spec = tensors.spec(name)
            forms[name] = PlainForm(spec.shape, spec.dtype)
    return PackedFile(path, tensors, dtype, forms)


@dataclass(frozen=True)
class _Entry:
    """What the metadata says of a tensor; ``layout`` is that of a quantized one."""

    shape: tuple[int, int]
    pattern: Pattern | None
    layout: str | None


def _form(name: str, entry: _Entry, tensors: TensorFiles) -> Form:
    if entry.layout is not None:
        return QuantizedForm(entry.shape, LAYOUTS[entry.layout], entry.pattern)
    assert entry.pattern is not None
    values = part_name(name, "values")
    dtype = tensors.spec(values).dtype if values in tensors else "F32"
    if dtype not in WEIGHT_TYPES:
        raise PatternError(f"its values are stored as {dtype}, which is not supported.")
    return CompressedForm(entry.shape, dtype, entry.pattern)


def _parse_metadata(text: str | None, path: Path) -> tuple[str, dict[str, _Entry]]:
    if text is None:
        raise CheckpointError(f"{path} is not a packed file: it lacks sparsebert's metadata.")
    broken = CheckpointError(f"{path}: sparsebert's metadata is damaged; pack the model again.")
    try:
        document = parse_json(text)
    except ValueError as error:
        raise broken from error
    if not isinstance(document, dict) or type(document.get("format_version")) is not int:
        raise broken
    version = document["format_version"]
    if not 1 <= version <= FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, but this version of sparsebert reads up to "
            f"{FORMAT_VERSION}: install a newer one, or pack the model again."
        )
    dtype, compressed = document.get("dtype"), document.get("compressed")
    quantized = document.get("quantized", {})
    if not isinstance(dtype, str):
        raise broken
    if not isinstance(compressed, dict) or not isinstance(quantized, dict):
        raise broken
    if dtype not in VALUE_TYPES:
        raise CheckpointError(
            f"{path} stores its values as '{dtype[:40]}', but this version of sparsebert supports "
            f"only {', '.join(VALUE_TYPES)}."
        )
    if (quantized and dtype != "int8") or compressed.keys() & quantized.keys():
        raise broken
    try:
        entries = {name: _parse_entry(entry, None) for name, entry in compressed.items()}
        for name, entry in quantized.items():
            entries[name] = _parse_entry(entry, entry["layout"])
    except (KeyError, TypeError, ValueError, PatternError) as error:
        raise broken from error
    return dtype, entries


def _parse_entry(entry: Any, layout: str | None) -> _Entry:
    """One entry of "compressed" or "quantized"; a built-in exception if it is malformed."""
    rows, columns = entry["shape"]
    if not all(type(size) is int and 1 <= size <= _LARGEST for size in (rows, columns)):
        raise ValueError
    pattern = read_pattern(entry)
    if layout not in (None, *LAYOUTS) or (layout is None and pattern is None):
        raise ValueError
    return _Entry((rows, columns), pattern, layout)
