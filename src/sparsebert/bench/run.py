"""One measurement: engines are prepared and loaded, rounds run, and their times put in rows.

Rounds are interleaved, A B A B ..., so that drifting machine speed affects all engines alike.
A *sample* is one engine's share of a round: enough calls to fill a fixed time, of which the median
counts. It ends when the engine's threads sleep, so that its pool does not spin beside the next
engine.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from sparsebert.bench.engines import (
    default_engines,
    known_engines,
    parse_engines,
)
from sparsebert.bench.result import OUR, BenchResult, EngineReport, Row, ratio_of
from sparsebert.bench.worker import Setup
from sparsebert.bench.worker_client import Worker, WorkerError, running
from sparsebert.bench.workloads import (
    Shape,
    Texts,
    Workload,
    shape_workload,
    text_workload,
    tokenise,
)
from sparsebert.checkpoint import EncoderConfig, open_checkpoint, resolve_model
from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.checkpoint.model_files import fingerprint, weight_files
from sparsebert.checkpoint.modules import transformer_folder
from sparsebert.engine import default_threads
from sparsebert.errors import InputError, OutputError
from sparsebert.machine import describe_machine
from sparsebert.packing import is_packed, open_packed
from sparsebert.progress import Progress, shown
from sparsebert.tasks.texts import Text, single_texts

_SAMPLE_SECONDS = 0.15
_MOST_CALLS = 1000

DEFAULT_SHAPES = (Shape(1, 16), Shape(1, 128), Shape(8, 128), Shape(1, 384), Shape(32, 128))


def run_bench(
    model: str | Path,
    *,
    shapes: Sequence[Shape] = DEFAULT_SHAPES,
    texts: Sequence[Text] = (),
    batch: int = 32,
    tokenizer: Path | None = None,
    engines: Sequence[str] | None = None,
    threads: int | None = None,
    rounds: int = 15,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> BenchResult:
    """Measure ``engines`` on one model at each of ``shapes``, ``rounds`` times each, interleaved.

    ``model`` is a dense, sparse or packed folder or a hub id. ``texts`` are measured after the
    shapes, in batches of ``batch``, read by the tokenizer of the folder ``tokenizer`` (the model's
    own by default). A classifier, or a model that answers questions, reads a pair as one text, any
    other model as two. Without ``engines``, ours and every usual peer that is installed. What
    peers' exporters make is kept in the folder ``cache`` for the next time.

    An engine that is not installed or fails is named with the reason in the result's ``engines``
    and has no rows. Raises InputError for an unknown engine, a shape longer than the model takes,
    texts without a tokenizer or nothing to measure, CheckpointError for the model, OutputError for
    the cache.
    """
    report = shown(progress)
    if rounds < 1:
        raise InputError(f"rounds must be at least 1, not {rounds}.")
    if batch < 1:
        raise InputError(f"batch must be at least 1, not {batch}.")
    if not shapes and not texts:
        raise InputError("there is nothing to measure: pass shapes or texts.")
    names = default_engines() if engines is None else parse_engines(",".join(engines))
    threads = threads or default_threads()
    folder = resolve_model(model)
    config = _config_of(folder)
    for shape in shapes:
        if shape.tokens > config.max_length:
            raise InputError(
                f"the shape {shape} is longer than the {config.max_length} tokens this model takes."
            )
    read = texts if config.head.reads_pairs else single_texts(texts)
    sequences = tokenise(read, tokenizer or folder, config.max_length) if read else []

    setups = {name: known_engines()[name]() for name in names}
    result = BenchResult(
        model=f"{config.num_hidden_layers} layers x {config.hidden_size} hidden, "
        f"{config.head.value}",
        pattern=str(config.recorded_pattern or "dense"),
        machine=describe_machine(),
        threads=threads,
        rounds=rounds,
        baseline=None,
        engines=[EngineReport(name, precision=setup.precision) for name, setup in setups.items()],
    )
    with ExitStack() as stack:
        workspace = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sparsebert-")))
        exports = workspace if cache is None else _cache_of(folder, cache)
        workloads = [shape_workload(shape, config.vocab_size, workspace) for shape in shapes]
        if sequences:
            workloads.append(text_workload(sequences, batch, config.vocab_size, workspace))
        workers: dict[str, Worker] = {}
        for number, engine in enumerate(result.engines):
            report(f"loading {engine.name}", number, len(result.engines))
            setup = setups[engine.name]
            exported = exports if setup.cacheable else workspace
            started = _start(engine, setup, folder, exported, workloads, threads, stack)
            if started is not None:
                workers[engine.name] = started
        report("engines loaded", len(result.engines), len(result.engines))

        reports = {engine.name: engine for engine in result.engines}
        ragged = {name for name, setup in setups.items() if setup.ragged}
        for workload in workloads:
            times = _measure(workload, workers, reports, ragged, rounds, report)
            result.baseline = result.baseline or next(
                (name for name in times if name.startswith(OUR)), None
            )
            result.rows += _rows(workload.shape, times, result.baseline)
        for name, worker in workers.items():
            try:
                reports[name].peak_bytes = worker.request("memory")["peak_bytes"]
            except WorkerError as error:
                reports[name].reason = f"at the end: {error}"
    return result


def _config_of(folder: Path) -> EncoderConfig:
    return open_packed(folder).config if is_packed(folder) else open_checkpoint(folder).config


def _cache_of(folder: Path, cache: Path) -> Path:
    """The folder of this model's exports: named by a hash of its config and weights."""
    transformer = transformer_folder(folder)
    files = [transformer / CONFIG_NAME, *weight_files(transformer)]
    exports = cache / fingerprint({file.name: file for file in files})[:16]
    try:
        exports.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the cache {cache} cannot be used: {error.strerror}.") from error
    return exports


def _start(
    engine: EngineReport,
    setup: Setup,
    folder: Path,
    workspace: Path,
    workloads: Sequence[Workload],
    threads: int,
    stack: ExitStack,
) -> Worker | None:
    """A loaded worker, or None with the reason noted in ``engine``."""
    engine.reason = setup.missing()
    if engine.reason is not None:
        return None
    try:
        source = str(folder)
        if setup.prepares:
            with running(setup.prepare_command(engine.name), {}, threads) as preparer:
                prepared = preparer.request("prepare", model=source, workspace=str(workspace))
            source = prepared["folder"]
        worker = stack.enter_context(
            running(setup.command(engine.name), setup.environment(threads), threads)
        )
        loaded = worker.request(
            "load",
            folder=source,
            threads=threads,
            batches=str(workloads[0].file(setup.ragged)),
        )
    except WorkerError as error:
        engine.reason = str(error)
        return None
    engine.load_seconds = loaded["seconds"]
    engine.first_answer_seconds = loaded["first_answer_seconds"]
    engine.version, engine.settings = loaded["about"]["version"], loaded["about"]["settings"]
    return worker


def _measure(
    workload: Workload,
    workers: dict[str, Worker],
    reports: dict[str, EngineReport],
    ragged: set[str],
    rounds: int,
    report: Progress,
) -> dict[str, list[float]]:
    """Seconds of each sample, by engine; an engine that fails is dropped from ``workers``."""
    times: dict[str, list[float]] = {name: [] for name in workers}
    calls: dict[str, int] = {}
    for number in range(rounds + 1):  # the first warms up and counts the calls of a sample
        report(f"{workload.shape}", number, rounds + 1)
        for name in list(workers):
            file = workload.file(name in ragged)
            try:
                if number == 0:
                    calls[name] = _count_calls(workers[name], file)
                else:
                    times[name].append(_median_of(workers[name], file, calls[name]))
            except WorkerError as error:
                reports[name].reason = f"at {workload.shape}: {error}"
                del workers[name], times[name]
    report(f"{workload.shape}", rounds + 1, rounds + 1)
    return times


def _count_calls(worker: Worker, batches: Path) -> int:
    """How many calls fill a sample, not misled by the first few of a process, which are slower."""
    calls = 1
    while True:
        seconds = _median_of(worker, batches, calls, warm_up=True)
        filling = min(math.ceil(_SAMPLE_SECONDS / max(seconds, 1e-6)), _MOST_CALLS)
        if filling < 2 * calls:
            return filling
        calls = filling


def _median_of(worker: Worker, batches: Path, calls: int, *, warm_up: bool = False) -> float:
    """Seconds of a call, the median of ``calls``."""
    # The caches hold another engine's weights: short calls need one more to warm up.
    first = 1 if warm_up or calls > 1 else 0
    answer = worker.request("run", batches=str(batches), warm_up=first, calls=calls)
    return float(np.median(answer["seconds"]))


def _rows(shape: Shape | Texts, times: dict[str, list[float]], baseline: str | None) -> list[Row]:
    rows = []
    for name, seconds in times.items():
        milliseconds = np.asarray(seconds) * 1e3
        q1, median, q3 = np.percentile(milliseconds, [25, 50, 75]).tolist()
        ratio = ratio_of(name, times, baseline).median if baseline in times else None
        samples = tuple(milliseconds.tolist())
        rows.append(Row(shape, name, median, q1, q3, min(samples), ratio, samples))
    return rows
