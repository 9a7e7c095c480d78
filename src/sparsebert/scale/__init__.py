"""Batch inference over files of any size, here or on a Ray cluster, and seeds in parallel.

It reads Parquet or JSON lines and writes Parquet. Names are imported on first use, as pyarrow and
Ray are slow to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsebert.extras import imported_on_use

_WHERE = {
    "FilesResult": "sparsebert.scale.files",
    "classify_files": "sparsebert.scale.files",
    "embed_files": "sparsebert.scale.files",
    "ray_executor": "sparsebert.scale.ray_cluster",
}

__all__ = [*_WHERE]

if TYPE_CHECKING:
    from sparsebert.scale.files import FilesResult as FilesResult
    from sparsebert.scale.files import classify_files as classify_files
    from sparsebert.scale.files import embed_files as embed_files
    from sparsebert.scale.ray_cluster import ray_executor as ray_executor

__getattr__ = imported_on_use(__name__, _WHERE)
