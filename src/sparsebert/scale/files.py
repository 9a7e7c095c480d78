"""`embed` and `classify` over files of any size: Parquet or JSON lines in, Parquet out.

The input is divided into parts (`parts`), each of which becomes one file of the output (`output`).
A worker with its own engine processes one part at a time (`job`): one worker in this process, or
many on a Ray cluster (`ray_cluster`). The output is the same.
"""

from __future__ import annotations

import secrets
import time
import warnings
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from sparsebert.checkpoint import resolve_model
from sparsebert.checkpoint.model_files import model_fingerprint
from sparsebert.errors import EngineError
from sparsebert.extras import need_extra
from sparsebert.inference import load
from sparsebert.inference.embedding_model import PoolingMode
from sparsebert.inference.embeddings import EmbeddingType
from sparsebert.progress import Progress, silent
from sparsebert.scale.columns import ERROR, Columns
from sparsebert.scale.finished_parts import is_whole
from sparsebert.scale.input_files import Location, find_input_files
from sparsebert.scale.job import Job, Report, Worker, describe
from sparsebert.scale.operations import Classification, Embedding, Operation, output_names
from sparsebert.scale.output import begin, discard, finish
from sparsebert.scale.parts import ROWS_PER_FILE, Part, make_plan

if TYPE_CHECKING:
    from typing_extensions import Unpack

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class FilesResult:
    """A finished job: ``rows`` rows in ``files`` files of the folder ``out``.

    ``rows_done`` is the number of rows processed by this call (the others were finished before); of
    these, ``failed`` have no result, and ``truncated`` had their text truncated. ``seconds`` is
    wall-clock time, ``worker_seconds`` the sum over all engines. ``workers`` is the number of
    engines that took part, ``threads`` the number of threads of each.
    """

    out: str
    rows: int
    files: int
    rows_done: int
    failed: int
    truncated: int
    seconds: float
    worker_seconds: float
    workers: int
    threads: int
    error_column: str

    @property
    def rows_per_second(self) -> float:
        """Throughput of this call, by wall-clock time."""
        return self.rows_done / max(self.seconds, 1e-9)

    def as_dict(self) -> dict[str, Any]:
        """All fields and `rows_per_second` as a dict, ready for JSON."""
        return {
            **asdict(self),
            "seconds": round(self.seconds, 3),
            "worker_seconds": round(self.worker_seconds, 3),
            "rows_per_second": round(self.rows_per_second, 3),
        }

    def __str__(self) -> str:
        files = "1 file" if self.files == 1 else f"{self.files:,} files"
        told = f"{self.out}: {self.rows:,} rows in {files}"
        if self.rows_done < self.rows:
            told += f", {self.rows - self.rows_done:,} of them done earlier"
        told += f"; {self.rows_done:,} rows in {self.seconds:.1f} s ({self.rows_per_second:.1f}/s)."
        if self.truncated:
            told += f"\nnote: {self.truncated:,} texts were truncated to the model's length limit."
        if self.failed:
            told += (
                f"\nnote: {self.failed:,} of {self.rows:,} rows have no result: see column "
                f"{self.error_column}."
            )
        return told


class FileKeywords(TypedDict, total=False):
    """The options that `embed_files` and `classify_files` share; see `run_files`."""

    text_column: str
    pair_column: str | None
    keep_columns: Sequence[str] | None
    max_length: int | None
    compute: str | None
    rows_per_file: int
    engine: str
    threads: int | None
    actors: int | tuple[int, int] | None
    address: str | None
    force: bool
    progress: Progress | None


def embed_files(
    model: str | Path,
    input: str | Path,
    out: str | Path,
    *,
    pooling: PoolingMode | None = None,
    normalize: bool | None = None,
    prompt: str | None = None,
    prompt_name: str | None = None,
    dimensions: int | None = None,
    output: EmbeddingType = "float32",
    batch_size: int = 32,
    strict: bool = False,
    output_column: str = "embedding",
    **options: Unpack[FileKeywords],
) -> FilesResult:
    """Embed a column of texts into a folder of Parquet files, as fixed-size lists of numbers.

    ``output_column`` is the name of the new column and ``options`` are those of `run_files`; the
    other arguments are those of `sparsebert.Model.embed`.
    """
    operation = Embedding(
        pooling, normalize, prompt, prompt_name, dimensions, output, batch_size, strict
    )
    return run_files(model, input, out, operation, output_column=output_column, **options)


def classify_files(
    model: str | Path,
    input: str | Path,
    out: str | Path,
    *,
    top_k: int | None = None,
    batch_size: int = 32,
    strict: bool = False,
    output_column: str = "label",
    **options: Unpack[FileKeywords],
) -> FilesResult:
    """Classify a column of texts, or two columns of pairs, into a folder of Parquet files.

    ``output_column`` (text) has the best label, and ``..._score`` (float32) its score: a
    probability, or the value that a regression predicts. With ``top_k`` or for a multi-label model,
    ``..._top`` lists labels with their scores. ``options`` are those of `run_files`.
    """
    operation = Classification(top_k, batch_size, strict)
    return run_files(model, input, out, operation, output_column=output_column, **options)


def run_files(
    model: str | Path,
    input: str | Path,
    out: str | Path,
    operation: Operation,
    *,
    output_column: str,
    text_column: str = "text",
    pair_column: str | None = None,
    keep_columns: Sequence[str] | None = None,
    max_length: int | None = None,
    compute: str | None = None,
    rows_per_file: int = ROWS_PER_FILE,
    engine: str = "local",
    threads: int | None = None,
    actors: int | tuple[int, int] | None = None,
    address: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> FilesResult:
    """Process every row of ``input`` and write the folder ``out``, in the order of the input.

    ``input`` is a file, a folder or a glob pattern of Parquet or JSON lines, or a URI
    (`input_files`). Rows keep all their columns, or only ``keep_columns``; a row that fails has a
    null as its result and the reason in ``OUTPUT_COLUMN_error``.

    With ``engine`` "local", this process runs one engine with ``threads`` threads (by default all
    cores). With "ray", a Ray cluster runs ``actors`` engines with ``threads`` threads each (by
    default 1). ``actors`` is a fixed number, or a pair (smallest, largest) for a cluster that
    scales; by default, as many run as fit. ``address`` is that of the cluster; by default, it is
    that of RAY_ADDRESS, else of a cluster that runs on this machine, else a new local cluster is
    started for the duration of the job.

    Called again, the function resumes an interrupted job: finished files in ``out`` are kept. Those
    that have been damaged since are made again, with a warning; to find out, files on this
    machine's disks are read in full. ``force`` starts over. A run that still writes to ``out`` when
    another one begins there stops with OutputError. Raises DataError, CheckpointError,
    InputError, EngineError, OutputError and ClusterError.
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
    inputs, target = find_input_files(input), Location.of(out)
    loaded = load(model, threads=threads, max_length=max_length, compute=compute)
    fields = operation.fields(loaded, output_column)
    plan = make_plan(inputs, columns, rows_per_file, report)
    columns.check_free(plan.schema, output_names(columns, fields))
    folder = Path(model)
    job = Job(
        # An absolute path, as workers have other working directories.
        model=str(folder.resolve() if folder.is_dir() else model),
        fingerprint=model_fingerprint(resolve_model(model)),
        max_length=max_length,
        compute=compute,
        operation=operation,
        columns=columns,
        inputs=inputs,
        out=target,
        schema=plan.schema,
        fields=fields,
        run=secrets.token_hex(8),
        threads=threads,
    )
    done = begin(target, describe(job, plan, rows_per_file), inputs, job.run, force=force)
    finished = [part for part in plan.parts if part.name in done]
    damaged = [part for part in finished if not is_whole(target, part)]
    if damaged:
        warnings.warn(
            f"{len(damaged)} of {len(finished)} finished files in {out} are damaged, such as "
            f"{damaged[0].name}: they are written again.",
            stacklevel=2,
        )
        discard(target, [part.name for part in damaged], job.run)
    missing = [part for part in plan.parts if part.name not in done or part in damaged]
    started = time.perf_counter()
    reports: list[Report] = []
    label = "embedding rows" if operation.verb == "embed" else "classifying rows"
    rows = plan.rows - sum(part.rows for part in missing)
    report(label, rows, plan.rows)
    if engine == "local":
        stream = _here(Worker(job, loaded), missing)
    else:
        from sparsebert.scale.ray_cluster import on_ray

        stream = on_ray(job, missing, actors, address)
    with closing(stream):
        for each in stream:
            reports.append(each)
            rows += each.rows
            report(label, rows, plan.rows)
    finish(target, [part.name for part in plan.parts], job.run)
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
