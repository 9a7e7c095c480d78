"""A teacher's outputs on disk, so that the next seed, recipe or resumed run need not ask again.

They are a cache and no part of a result, so they stand where a user expects such files and may
delete them: in ``sparsebert/teacher-outputs`` under ``$XDG_CACHE_HOME`` (``~/.cache``), or under
``$SPARSEBERT_CACHE`` where that is set. A file's name is a hash of all that its numbers depend on,
the teacher's config and weights, the tokenised rows and the number type; so runs into different
folders share it, and nothing stale is ever read. Logits take 4 bytes each: about 5 MB for MNLI's
three classes, 130 MB for SQuAD's two numbers a token.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from sparsebert.checkpoint import Checkpoint, TensorFiles, TensorSpec, write_tensors
from sparsebert.checkpoint.dtypes import Array
from sparsebert.errors import CheckpointError
from sparsebert.tasks.table import Kind
from sparsebert.tasks.tokens import TokenRows
from sparsebert.training.teacher_outputs import TeacherOutputs

_KEY = "sparsebert"
_VERSION = 1


def cache_folder() -> Path:
    """Where the files stand; it need not exist."""
    ours = os.environ.get("SPARSEBERT_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sparsebert"
    return (Path(ours).expanduser() if ours else base) / "teacher-outputs"


def outputs_key(teacher: Checkpoint, rows: TokenRows, number_type: str) -> str:
    """SHA-256 of all that a teacher's outputs depend on: its model, the rows, the number type."""
    digest = hashlib.sha256(f"{_VERSION} {number_type} ".encode())
    digest.update(json.dumps(teacher.config.raw, sort_keys=True).encode())
    for name in sorted(teacher.tensors):
        digest.update(f"{name} {teacher.tensors.spec(name)}".encode())
        digest.update(np.ascontiguousarray(teacher.tensors[name]).view(np.uint8).data)
    for array in (rows.offsets, rows.ids, rows.type_ids):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def cached_outputs(
    key: str, kind: Kind, rows: TokenRows, compute: Callable[[], TeacherOutputs]
) -> TeacherOutputs:
    """The outputs under ``key``; computed and kept if there are none, or none that are whole.

    Where they cannot be kept (no space, no permission) they are used all the same.
    """
    file = cache_folder() / f"{key}.safetensors"
    kept = _read(file, key, kind, rows)
    if kept is not None:
        return kept
    outputs = compute()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, key, outputs)
    return outputs


def _write(file: Path, key: str, outputs: TeacherOutputs) -> None:
    arrays: dict[str, Array] = {
        "logits": outputs.logits,
        "hidden_variance": outputs.hidden_variance,
    }
    record = {
        "format_version": _VERSION,
        "kind": "teacher-outputs",
        "key": key,
        "sha256": {name: _digest(array) for name, array in arrays.items()},
    }
    specs = [
        TensorSpec("logits", "F32", outputs.logits.shape),
        TensorSpec("hidden_variance", "F64", outputs.hidden_variance.shape),
    ]
    write_tensors(file, specs, arrays.values(), {_KEY: json.dumps(record)})


def _read(file: Path, key: str, kind: Kind, rows: TokenRows) -> TeacherOutputs | None:
    """What a file holds, if it is whole and what it should be."""
    if not file.is_file():
        return None
    try:
        tensors = TensorFiles([file])
        record = json.loads(tensors.metadata[_KEY])
        logits, variance = tensors["logits"], tensors["hidden_variance"]
        sums = {"logits": _digest(logits), "hidden_variance": _digest(variance)}
        whole = record["key"] == key and record["sha256"] == sums
    except (CheckpointError, KeyError, TypeError, ValueError):
        return None
    question = kind is Kind.QUESTION
    count = rows.offsets[-1] if question else len(rows)
    fits = logits.dtype == np.float32 and logits.ndim == 2 and len(logits) == count
    if not (whole and fits and variance.dtype == np.float64 and variance.ndim == 1):
        return None
    return TeacherOutputs(logits, variance, rows.offsets if question else None)


def _digest(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data).hexdigest()
