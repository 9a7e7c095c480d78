"""A job: what is asked of which model, over which rows, into which folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.checkpoint import resolve_model, source_name
from sparsebert.checkpoint.sentence_transformers import SENTENCE_CONFIGS
from sparsebert.scale.answers import Question
from sparsebert.scale.columns import Columns
from sparsebert.scale.places import Input, Place
from sparsebert.scale.plan import Plan

if TYPE_CHECKING:
    import pyarrow as pa

_FILES = {  # beside the weights, what answers depend on
    *SENTENCE_CONFIGS,
    "added_tokens.json",
    "config.json",
    "config_sentence_transformers.json",
    "merges.txt",
    "modules.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
}
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Job:
    """Everything that a worker on any machine has to know. ``model`` is a folder or a hub id.

    ``fields`` are the new columns; ``threads`` are those of one engine, None for all cores.
    """

    model: str
    fingerprint: str
    max_length: int | None
    question: Question
    columns: Columns
    given: Input
    out: Place
    schema: pa.Schema
    fields: Sequence[pa.Field]
    threads: int | None = None


@dataclass(frozen=True)
class Report:
    """What came of a part.

    ``failed`` rows have no answer, ``truncated`` texts were cut; ``seconds`` are a worker's.
    """

    part: int
    rows: int = 0
    failed: int = 0
    truncated: int = 0
    seconds: float = 0.0
    process: int = 0
    machine: str = ""


def describe(job: Job, plan: Plan, rows_per_file: int) -> dict[str, Any]:
    """What the output depends on, ready for JSON: a job that goes on must have the same.

    No paths: the folder may be published.
    """
    options = asdict(job.question)
    options.pop("batch_size")  # changes nothing but the speed
    return {
        "command": job.question.verb,
        "model": source_name(job.model),
        "model_sha256": job.fingerprint,
        "max_length": job.max_length,
        **options,
        "text_column": job.columns.text,
        "pair_column": job.columns.pair,
        "keep_columns": None if job.columns.keep is None else list(job.columns.keep),
        "output_column": job.columns.result,
        "rows_per_file": rows_per_file,
        "input_files": len(job.given.files),
        "input_rows": plan.rows,
        "input_sha256": plan.digest,
    }


def fingerprint(model: str | Path) -> str:
    """SHA-256 of all that a model's answers depend on: weights, config, tokenizer, pooling."""
    folder = resolve_model(model)
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (path.suffix == ".safetensors" or path.name in _FILES):
            digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
    return digest.hexdigest()
