"""The record that sparsebert keeps in config.json, under ``sparsity``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparsebert.errors import CheckpointError, PatternError
from sparsebert.patterns import Pattern

SPARSITY_VERSION = 1


def read_sparsity(raw: dict[str, Any], where: Path) -> dict[str, Any] | None:
    """The record as it stands, None without one; CheckpointError unless sparsebert wrote it."""
    record = raw.get("sparsity")
    if record is None:
        return None
    problem = CheckpointError(f"{where}: 'sparsity' is not a record that sparsebert wrote.")
    if not isinstance(record, dict):
        raise problem
    version = record.get("format_version")
    if type(version) is int and version > SPARSITY_VERSION:
        raise CheckpointError(
            f"{where}: 'sparsity' has format version {version}; this sparsebert reads up to "
            f"{SPARSITY_VERSION}. Install a newer one."
        )
    layers, lineage = record.get("layers", []), record.get("lineage", [])
    if (
        version != SPARSITY_VERSION
        or not isinstance(record.get("pattern"), str | None)
        or not isinstance(record.get("method"), str | None)
        or not isinstance(layers, list)
        or not all(isinstance(name, str) for name in layers)
        or not isinstance(lineage, list)
        or not all(isinstance(step, dict) for step in lineage)
    ):
        raise problem
    if record.get("pattern") is not None:
        try:
            Pattern.parse(record["pattern"])
        except PatternError as error:
            raise CheckpointError(f"{where}: 'sparsity': {error}") from error
    elif layers:
        raise problem
    return record
