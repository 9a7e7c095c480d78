"""Batch inference over files of any size, here or on a Ray cluster, and seeds in parallel.

Parquet or JSON lines in, Parquet out. Names are imported on first use: pyarrow and Ray are heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_WHERE = {
    "FilesResult": "sparsebert.scale.files",
    "classify_files": "sparsebert.scale.files",
    "embed_files": "sparsebert.scale.files",
    "ray_executor": "sparsebert.scale.ray_cluster",
}

__all__ = ["FilesResult", "classify_files", "embed_files", "ray_executor"]

if TYPE_CHECKING:
    from sparsebert.scale.files import FilesResult as FilesResult
    from sparsebert.scale.files import classify_files as classify_files
    from sparsebert.scale.files import embed_files as embed_files
    from sparsebert.scale.ray_cluster import ray_executor as ray_executor


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'sparsebert.scale' has no attribute '{name}'")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
