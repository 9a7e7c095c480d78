"""Interleaved rounds: A B A B ..., so that a machine whose speed drifts is as unkind to all alike.

A *turn* is one engine's share of a round: enough calls to last about a tenth of a second, of which
the median counts. A ratio is taken inside each round, between turns a moment apart, and the median
of those is reported; it holds still where the times themselves do not.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from sparsebert.bench.engines import known_engines, parse_engines
from sparsebert.bench.machine import describe_machine
from sparsebert.bench.result import BenchResult, EngineReport, Row
from sparsebert.bench.shapes import Shape
from sparsebert.bench.workers import Worker, WorkerError, running
from sparsebert.checkpoint import EncoderConfig, open_checkpoint, resolve_model
from sparsebert.engine import default_threads
from sparsebert.errors import InputError
from sparsebert.packing import is_packed, open_packed
from sparsebert.progress import Progress, silent

DEFAULT_SHAPES = (Shape(1, 16), Shape(1, 128), Shape(8, 128), Shape(1, 384))
DEFAULT_ENGINES = ("sparsebert-fp32", "torch")

_TURN_SECONDS = 0.1
_MOST_CALLS = 20
# Thread pools go on spinning for some milliseconds after a call; the next engine should not pay.
_SETTLE_SECONDS = 0.02


def run_bench(
    model: str | Path,
    *,
    shapes: Sequence[Shape] = DEFAULT_SHAPES,
    engines: Sequence[str] = DEFAULT_ENGINES,
    threads: int | None = None,
    rounds: int = 15,
    progress: Progress | None = None,
) -> BenchResult:
    """Measure ``engines`` on one model at each of ``shapes``, ``rounds`` times each, interleaved.

    ``model`` is a dense, sparse or packed folder or a hub id. An engine that is not installed or
    fails is named with the reason in the result's ``engines`` and has no rows. Raises InputError
    for an unknown engine or a shape longer than the model takes, CheckpointError for the model.
    """
    report = progress or silent
    if rounds < 1:
        raise InputError("at least one round is needed.")
    names = parse_engines(",".join(engines))
    threads = threads or default_threads()
    folder = resolve_model(model)
    config = _config_of(folder)
    for shape in shapes:
        if shape.tokens > config.max_position_embeddings:
            raise InputError(
                f"the shape {shape} is longer than the {config.max_position_embeddings} tokens "
                "this model takes."
            )

    result = BenchResult(
        model=f"{config.num_hidden_layers} layers x {config.hidden_size} hidden, "
        f"{config.head.value}",
        pattern=str(config.recorded_pattern or "dense"),
        machine=describe_machine(),
        threads=threads,
        rounds=rounds,
        baseline=None,
        engines=[EngineReport(name) for name in names],
    )
    with ExitStack() as stack:
        workspace = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sparsebert-")))
        workers: dict[str, Worker] = {}
        for number, engine in enumerate(result.engines):
            report("loading engines", number, len(result.engines))
            started = _start(engine, folder, workspace, threads, stack)
            if started is not None:
                workers[engine.name] = started
        report("loading engines", len(result.engines), len(result.engines))

        reports = {engine.name: engine for engine in result.engines}
        for shape in shapes:
            times = _measure(shape, workers, reports, config.vocab_size, rounds, report)
            result.rows += _rows(shape, times)
        for name, worker in workers.items():
            reports[name].peak_bytes = worker.ask("memory")["peak_bytes"]
    result.baseline = _baseline([row.engine for row in result.rows])
    return result


def _config_of(folder: Path) -> EncoderConfig:
    return open_packed(folder).config if is_packed(folder) else open_checkpoint(folder).config


def _start(
    engine: EngineReport, folder: Path, workspace: Path, threads: int, stack: ExitStack
) -> Worker | None:
    """A loaded worker, or None with the reason noted in ``engine``."""
    made = known_engines()[engine.name]()
    engine.reason = made.missing()
    if engine.reason is not None:
        return None
    try:
        source = str(folder)
        if made.prepares:
            with running(engine.name, threads) as preparer:
                source = preparer.ask("prepare", model=source, workspace=str(workspace))["folder"]
        worker = stack.enter_context(running(engine.name, threads))
        loaded = worker.ask("load", folder=source, threads=threads)
    except WorkerError as error:
        engine.reason = str(error)
        return None
    engine.load_seconds = loaded["seconds"]
    engine.version, engine.settings = loaded["about"]["version"], loaded["about"]["settings"]
    return worker


def _measure(
    shape: Shape,
    workers: dict[str, Worker],
    reports: dict[str, EngineReport],
    vocabulary: int,
    rounds: int,
    report: Progress,
) -> dict[str, list[float]]:
    """Seconds of each turn, by engine; an engine that fails is dropped from ``workers``."""
    request = {"batch": shape.batch, "tokens": shape.tokens, "vocabulary": vocabulary}
    times: dict[str, list[float]] = {name: [] for name in workers}
    calls: dict[str, int] = {}
    for turn in range(rounds + 1):  # the first warms up and tells how many calls fill a turn
        report(f"{shape}", turn, rounds + 1)
        for name in list(workers):
            try:
                warm_up = 0 if calls.get(name) == 1 else 1  # a long call needs no warming
                seconds = workers[name].ask(
                    "run", **request, warm_up=warm_up, calls=calls.get(name, 2)
                )["seconds"]
            except WorkerError as error:
                reports[name].reason = f"at {shape}: {error}"
                del workers[name], times[name]
                continue
            if turn == 0:
                wanted = math.ceil(_TURN_SECONDS / max(min(seconds), 1e-6))
                calls[name] = min(wanted, _MOST_CALLS)
            else:
                times[name].append(float(np.median(seconds)))
            time.sleep(_SETTLE_SECONDS)
    report(f"{shape}", rounds + 1, rounds + 1)
    return times


def _baseline(names: Sequence[str]) -> str | None:
    return next((name for name in names if name.startswith("sparsebert")), None)


def _rows(shape: Shape, times: dict[str, list[float]]) -> list[Row]:
    baseline = _baseline(list(times))
    rows = []
    for name, seconds in times.items():
        milliseconds = np.asarray(seconds) * 1e3
        q1, median, q3 = np.percentile(milliseconds, [25, 50, 75])
        ratio = None
        if baseline is not None:
            ratio = float(np.median(milliseconds / (np.asarray(times[baseline]) * 1e3)))
        rows.append(
            Row(shape, name, float(median), float(q1), float(q3), float(milliseconds.min()), ratio)
        )
    return rows
