"""`embed` and `classify` over files of any size: Parquet or JSON lines in, Parquet out.

A job is cut into parts (`plan`), each of which becomes one file of the output (`output`). A worker
with an engine of its own does a part at a time (`worker`): one worker in this process, or many on a
Ray cluster (`ray_data`). Whoever does it, the output is the same.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sparsebert.checkpoint import resolve_model
from sparsebert.errors import EngineError
from sparsebert.extras import need_extra
from sparsebert.inference import load
from sparsebert.inference.model import PoolingMode
from sparsebert.progress import Progress, silent
from sparsebert.scale.answers import Classification, Embedding, Question, output_names
from sparsebert.scale.columns import ERROR, Columns
from sparsebert.scale.job import Job, Report, describe, fingerprint
from sparsebert.scale.output import begin, finish
from sparsebert.scale.places import Place, find_input
from sparsebert.scale.plan import ROWS_PER_FILE, Part, make_plan
from sparsebert.scale.result import FilesResult
from sparsebert.scale.worker import Worker

ENGINES = ("local", "ray")


def embed_files(
    model: str | Path,
    input: str | Path,
    out: str | Path,
    *,
    pooling: PoolingMode | None = None,
    normalize: bool | None = None,
    prompt: str | None = None,
    batch_size: int = 32,
    strict: bool = False,
    output_column: str = "embedding",
    **options: Any,
) -> FilesResult:
    """Embed a column of texts: float32 vectors of the model's size into a folder of Parquet.

    ``options`` are those of `run_files`; the others are those of `sparsebert.Model.embed`.
    """
    question = Embedding(pooling, normalize, prompt, batch_size, strict)
    return run_files(model, input, out, question, output_column=output_column, **options)


def classify_files(
    model: str | Path,
    input: str | Path,
    out: str | Path,
    *,
    top_k: int | None = None,
    batch_size: int = 32,
    strict: bool = False,
    output_column: str = "label",
    **options: Any,
) -> FilesResult:
    """Label a column of texts, or two of pairs, into a folder of Parquet.

    Beside ``output_column`` (text) stands its score, ``..._score`` (float32): a probability, or the
    value of a regression. With ``top_k``, or a multi-label model, ``..._top`` lists labels with
    scores. ``options`` are those of `run_files`.
    """
    question = Classification(top_k, batch_size, strict)
    return run_files(model, input, out, question, output_column=output_column, **options)


def run_files(
    model: str | Path,
    input: str | Path,
    out: str | Path,
    question: Question,
    *,
    output_column: str,
    text_column: str = "text",
    pair_column: str | None = None,
    keep_columns: Sequence[str] | None = None,
    max_length: int | None = None,
    rows_per_file: int = ROWS_PER_FILE,
    engine: str = "local",
    threads: int | None = None,
    actors: int | tuple[int, int] | None = None,
    address: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> FilesResult:
    """Answer every row of ``input`` and write folder ``out``, in the order of the input.

    ``input`` is a file, a folder or a pattern of Parquet or JSON lines, or a URL (`places`). Rows
    keep their columns (or ``keep_columns`` of them); a row that cannot be answered has a null and
    says why in ``OUTPUT_COLUMN_error``.

    ``engine`` "local" works in this process with ``threads`` (all cores); "ray" with ``actors`` on
    a Ray cluster, each an engine of ``threads`` (1): so many, from so many to so many as the
    cluster grows, or as many as it has room for. ``address`` is the cluster's; without it
    RAY_ADDRESS, else one that runs on this machine, else a new one here for the time of the job.

    A job that stopped goes on when it is called again: what ``out`` has is kept, for only whole
    files get their name there. ``force`` begins anew. Raises DataError, CheckpointError,
    InputError, OutputError and ClusterError.
    """
    need_extra("answering files", "pyarrow", extra="scale")
    if engine not in ENGINES:
        raise EngineError(f"'{engine}' is not an engine for files: choose {', '.join(ENGINES)}.")
    if engine == "local" and (actors is not None or address is not None):
        raise EngineError("actors and address are for engine 'ray'.")
    if engine == "ray":
        need_extra("engine 'ray'", "ray", extra="scale")
        threads = threads or 1
    report = progress or silent
    keep = None if keep_columns is None else tuple(keep_columns)
    columns = Columns(text_column, pair_column, keep, output_column)
    given, target = find_input(input), Place.of(out)
    loaded = load(model, threads=threads, max_length=max_length)
    fields = question.fields(loaded, output_column)
    plan = make_plan(given, columns, rows_per_file, report)
    columns.check_free(plan.schema, output_names(columns, fields))
    folder = Path(model)
    job = Job(
        # By its full path, wherever the workers stand.
        model=str(folder.resolve() if folder.is_dir() else model),
        fingerprint=fingerprint(resolve_model(model)),
        max_length=max_length,
        question=question,
        columns=columns,
        given=given,
        out=target,
        schema=plan.schema,
        fields=fields,
        threads=threads,
    )
    done = begin(target, describe(job, plan, rows_per_file), given, force=force)
    missing = [part for part in plan.parts if part.name not in done]
    started = time.perf_counter()
    reports: list[Report] = []
    label = "embedding rows" if question.verb == "embed" else "classifying rows"
    rows = plan.rows - sum(part.rows for part in missing)
    report(label, rows, plan.rows)
    if engine == "local":
        stream = _here(Worker(job, loaded), missing)
    else:
        from sparsebert.scale.ray_data import on_ray

        stream = on_ray(job, missing, actors, address)
    with closing(stream):
        for each in stream:
            reports.append(each)
            rows += each.rows
            report(label, rows, plan.rows)
    finish(target, [part.name for part in plan.parts])
    return FilesResult(
        out=str(out),
        rows=plan.rows,
        files=len(plan.parts),
        rows_done=sum(each.rows for each in reports),
        failed=sum(each.failed for each in reports),
        truncated=sum(each.truncated for each in reports),
        seconds=time.perf_counter() - started,
        worker_seconds=sum(each.seconds for each in reports),
        workers=len({(each.machine, each.process) for each in reports}),
        threads=loaded.threads,
        error_column=output_column + ERROR,
    )


def _here(worker: Worker, parts: Sequence[Part]) -> Generator[Report]:
    for part in parts:
        yield worker.do(part)
