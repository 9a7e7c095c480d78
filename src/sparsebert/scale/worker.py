"""One engine at work: a part in, a file out, whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import time

from sparsebert.errors import CheckpointError
from sparsebert.inference import Model, load
from sparsebert.scale.answers import answer_table
from sparsebert.scale.job import Job, Report, fingerprint
from sparsebert.scale.output import PartWriter
from sparsebert.scale.plan import Part
from sparsebert.scale.reading import read_part


class Worker:
    """Does parts of a job one after the other, with an engine of its own.

    Without ``model`` it loads the job's when the first part comes, and sees that it is the same on
    this machine as where the job began.
    """

    def __init__(self, job: Job, model: Model | None = None) -> None:
        self._job = job
        self._model = model

    def do(self, part: Part) -> Report:
        """Answer the rows of a part and write them. Doing a part again replaces its file.

        Raises DataError, OutputError and CheckpointError.
        """
        started = time.perf_counter()
        job, model = self._job, self._loaded()
        failed = truncated = rows = 0
        with PartWriter(job.out, part.name) as writer:
            for table in read_part(job.given, job.schema, part):
                answered, answers = answer_table(
                    table, job.question, model, job.columns, job.fields
                )
                writer.add(answered)
                rows += table.num_rows
                failed += len(answers.errors)
                truncated += answers.truncated
            counts = {"part": part.number, "rows": rows, "failed": failed, "truncated": truncated}
            writer.note("sparsebert", json.dumps(counts))
        seconds = time.perf_counter() - started
        return Report(part.number, rows, failed, truncated, seconds, os.getpid(), platform.node())

    def _loaded(self) -> Model:
        if self._model is None:
            job = self._job
            if fingerprint(job.model) != job.fingerprint:
                raise CheckpointError(
                    f"the model {job.model} on {platform.node()} is not the one that the job was "
                    "started with: have the same on every machine."
                )
            self._model = load(job.model, threads=job.threads, max_length=job.max_length)
        return self._model
