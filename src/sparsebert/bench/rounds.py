"""Interleaved rounds: A B A B ..., so that a machine whose speed drifts is as unkind to all alike.

A *turn* is one engine's share of a round: enough calls to fill a slot, of which the median counts.
It ends when the engine's threads sleep: none has another's pool spinning beside it.
"""

from __future__ import annotations

import math

import numpy as np

from sparsebert.bench.result import EngineReport
from sparsebert.bench.workers import Worker, WorkerError
from sparsebert.bench.workloads import Workload
from sparsebert.progress import Progress

_TURN_SECONDS = 0.15
_MOST_CALLS = 200


def measure(
    workload: Workload,
    workers: dict[str, Worker],
    reports: dict[str, EngineReport],
    ragged: set[str],
    rounds: int,
    report: Progress,
) -> dict[str, list[float]]:
    """Seconds of each turn, by engine; an engine that fails is dropped from ``workers``."""
    times: dict[str, list[float]] = {name: [] for name in workers}
    calls: dict[str, int] = {}
    for turn in range(rounds + 1):  # the first warms up and tells how many calls fill a turn
        report(f"{workload.shape}", turn, rounds + 1)
        for name in list(workers):
            count = calls.get(name, 1)
            # Another engine's weights are in the caches now: a short call needs one to warm them.
            warm_up = 1 if turn == 0 or count > 1 else 0
            try:
                seconds = workers[name].ask(
                    "run",
                    batches=str(workload.file(name in ragged)),
                    warm_up=warm_up,
                    calls=count,
                )["seconds"]
            except WorkerError as error:
                reports[name].reason = f"at {workload.shape}: {error}"
                del workers[name], times[name]
                continue
            if turn == 0:
                wanted = math.ceil(_TURN_SECONDS / max(min(seconds), 1e-6))
                calls[name] = min(wanted, _MOST_CALLS)
            else:
                times[name].append(float(np.median(seconds)))
    report(f"{workload.shape}", rounds + 1, rounds + 1)
    return times
