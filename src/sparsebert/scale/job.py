"""A job (model, operation, input, output) and the worker that processes its parts."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sparsebert.checkpoint import resolve_model, source_name
from sparsebert.checkpoint.model_files import model_fingerprint
from sparsebert.errors import CheckpointError
from sparsebert.inference import Model, load
from sparsebert.scale.columns import Columns
from sparsebert.scale.input_files import InputFiles, Location
from sparsebert.scale.operations import Operation, answer_table
from sparsebert.scale.output import PartWriter
from sparsebert.scale.parts import Part, PartReader, Plan

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Job:
    """Everything that a worker on any machine needs. ``model`` is a folder or a hub id.

    ``fields`` are the new columns; ``run`` tells this run of the job from others into the same
    folder; ``threads`` are those of one engine, None for all cores.
    """

    model: str
    fingerprint: str
    max_length: int | None
    compute: str | None
    operation: Operation
    columns: Columns
    inputs: InputFiles
    out: Location
    schema: pa.Schema
    fields: Sequence[pa.Field]
    run: str
    threads: int | None = None


@dataclass(frozen=True)
class Report:
    """The result of one part.

    ``failed`` rows have no result, ``truncated`` texts were cut; ``seconds`` is the worker's time.
    """

    part: int
    rows: int = 0
    failed: int = 0
    truncated: int = 0
    seconds: float = 0.0
    process: int = 0
    machine: str = ""


def describe(job: Job, plan: Plan, rows_per_file: int) -> dict[str, Any]:
    """What the output depends on, ready for JSON: a job is resumed only with the same.

    Without paths: the folder may be published.
    """
    options = asdict(job.operation)
    options.pop("batch_size")  # affects only the speed
    return {
        "command": job.operation.verb,
        "model": source_name(job.model),
        "model_sha256": job.fingerprint,
        "max_length": job.max_length,
        **({"compute": job.compute} if job.compute else {}),
        **options,
        "text_column": job.columns.text,
        "pair_column": job.columns.pair,
        "keep_columns": None if job.columns.keep is None else list(job.columns.keep),
        "output_column": job.columns.result,
        "rows_per_file": rows_per_file,
        "input_files": len(job.inputs.files),
        "input_rows": plan.rows,
        "input_sha256": plan.digest,
    }


class Worker:
    """Processes parts of a job one after the other, with its own engine.

    Without ``model``, it loads the job's model for the first part, checking that it is the same as
    on the machine where the job was started.
    """

    def __init__(self, job: Job, model: Model | None = None) -> None:
        self._job = job
        self._model = model
        self._reader = PartReader(job.inputs, job.schema)

    def do(self, part: Part) -> Report:
        """Process the rows of a part and write its file, replacing one that is there.

        Raises DataError, OutputError and CheckpointError.
        """
        started = time.perf_counter()
        job, model = self._job, self._loaded()
        failed = truncated = rows = 0
        with PartWriter(job.out, part.name, job.run) as writer:
            for table in self._reader.read(part):
                answered, answers = answer_table(
                    table, job.operation, model, job.columns, job.fields
                )
                writer.add(answered)
                rows += table.num_rows
                failed += len(answers.errors)
                truncated += answers.truncated
            counts = {"part": part.number, "rows": rows, "failed": failed, "truncated": truncated}
            writer.note(counts)
        seconds = time.perf_counter() - started
        return Report(part.number, rows, failed, truncated, seconds, os.getpid(), platform.node())

    def _loaded(self) -> Model:
        if self._model is None:
            job = self._job
            if model_fingerprint(resolve_model(job.model)) != job.fingerprint:
                raise CheckpointError(
                    f"the model {job.model} on {platform.node()} is not the one that the job was "
                    "started with: copy the same model to every machine."
                )
            self._model = load(
                job.model, threads=job.threads, max_length=job.max_length, compute=job.compute
            )
        return self._model
