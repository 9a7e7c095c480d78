"""A job's parts on a Ray cluster: Ray Data hands them to a pool of actors, an engine in each.

Only the numbers that describe a part pass through Ray; rows are read and written where the engine
is. When an actor dies, Ray starts another and gives it the part anew, and what it had written is
overwritten. An error that will not go away with another try (a file that cannot be read, a full
disk) comes back as a row, and ends the job.
"""

from __future__ import annotations

import logging
import os
import platform
import traceback
from collections.abc import Generator, Sequence
from dataclasses import asdict
from typing import Any

from sparsebert.errors import ClusterError, SparsebertError
from sparsebert.scale.job import Job, Report
from sparsebert.scale.output import TRIES
from sparsebert.scale.plan import Part
from sparsebert.scale.ray_cluster import machine_cores, one_line, ray_cluster, room_for
from sparsebert.scale.worker import Worker

_MOST_BLOCKS = 10_000  # Ray Data keeps count of each


def on_ray(
    job: Job,
    parts: Sequence[Part],
    actors: int | tuple[int, int] | None,
    address: str | None,
) -> Generator[Report]:
    """What comes of each part, as it is done, in no order. Raises ClusterError."""
    if not parts:
        return
    with ray_cluster(address):
        import ray
        import ray.data.exceptions

        smallest, largest = _pool(actors, job.threads or 1, len(parts))
        _quieten()
        rows = ray.data.from_items(
            [asdict(part) for part in parts], override_num_blocks=min(len(parts), _MOST_BLOCKS)
        )
        rows.context.enable_progress_bars = False
        rows.context.print_on_execution_start = False
        rows.context.execution_no_progress_timeout_s = -1  # a part takes as long as it takes
        rows.context.max_consecutive_actor_init_deaths = TRIES
        done = rows.map_batches(
            _Actor,
            fn_constructor_kwargs={"job": job},
            batch_size=1,
            num_cpus=job.threads or 1,
            # One part at a time: another waiting behind it would not go to an actor that is free.
            compute=ray.data.ActorPoolStrategy(
                min_size=smallest, max_size=largest, max_tasks_in_flight_per_actor=1
            ),
        )
        try:
            for found in done.iter_rows():
                error = found.pop("error")
                if error:
                    raise ClusterError(f"on machine {found['machine']}: {error}")
                yield Report(**found)
        except (ray.exceptions.RayError, ray.data.exceptions.SystemException) as fault:
            raise ClusterError(
                f"Ray could not go on ({one_line(fault)}). What is finished is kept: the same "
                "command goes on from there."
            ) from fault


class _Actor:
    """A worker in a process of its own."""

    def __init__(self, job: Job) -> None:
        # The tokenizer's own threads would else be as many as the machine has cores.
        os.environ["RAYON_NUM_THREADS"] = str(job.threads or 1)
        self._worker = Worker(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        part = Part(**{name: int(values[0]) for name, values in batch.items()})
        error = ""
        try:
            report = self._worker.do(part)
        except Exception as fault:
            report, error = Report(part.number, machine=platform.node()), str(fault)
            if not isinstance(fault, SparsebertError):
                traceback.print_exc()  # into Ray's log of this process
                error = f"{type(fault).__name__}: {fault}"
        return {name: [value] for name, value in {**asdict(report), "error": error}.items()}


def _pool(actors: int | tuple[int, int] | None, threads: int, parts: int) -> tuple[int, int]:
    """How few and how many actors, never more than there are parts."""
    room = room_for(threads)
    if not room and not isinstance(actors, tuple):  # they would be waited for in vain
        raise ClusterError(
            f"no machine of the Ray cluster has {threads} cores for an engine's threads (the "
            f"largest has {machine_cores()}): give fewer --threads, or --actors MIN:MAX where the "
            "cluster grows."
        )
    actors = room if actors is None else actors
    smallest, largest = (actors, actors) if isinstance(actors, int) else actors
    if not 1 <= smallest <= largest:
        raise ClusterError(f"actors must be a number from 1, or a smaller and a larger: {actors}.")
    return min(smallest, parts), min(largest, parts)


def _quieten() -> None:
    """Leave the terminal to our own progress: Ray Data's log files have everything all the same."""
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.ERROR)
