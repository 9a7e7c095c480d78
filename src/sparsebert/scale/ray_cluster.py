"""Ray: connecting to a cluster, running the parts of a job on a pool of actors, and seeds as tasks.

Ray Data distributes the parts of a job to actors, each with its own engine. Only the numbers that
describe a part pass through Ray; rows are read and written where the engine is. When an actor dies,
Ray starts another one, which processes the part again from the start. An error that a retry would
not fix (an unreadable file, a full disk) is returned as a row and ends the job.

Seeds of a model are Ray tasks:

    finetune_seeds("sparse/", "runs/", task="sst2", seeds=range(1, 6), executor=ray_executor())

Each machine must see the folders by the same path.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sparsebert.errors import ClusterError, SparsebertError
from sparsebert.evaluation.seeds import SeedExecutor
from sparsebert.extras import need_extra
from sparsebert.progress import Progress
from sparsebert.scale.job import Job, Report, Worker
from sparsebert.scale.output import TRIES
from sparsebert.scale.parts import Part

_MOST_BLOCKS = 10_000  # Ray Data keeps track of every block
_ANSWER_SECONDS = 30.0
_OBJECT_STORE = 200 << 20  # bytes; only descriptions of parts pass through it, never rows
_PATHS = ("model", "out", "data", "teacher", "unlabelled")
_RETRIES = 3  # for a seed whose machine died; it resumes from its last checkpoint


@contextmanager
def ray_cluster(address: str | None = None) -> Iterator[None]:
    """A context that is connected to a cluster.

    If the program is already connected to one, that connection is used and left open. Without
    ``address``, the cluster is that of RAY_ADDRESS, else one that `ray start` started on this
    machine, else (as with "local") a new one on all cores of this machine, which ends with the
    block. Raises ClusterError if it cannot be reached.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics are sent
    named = address or os.environ.get("RAY_ADDRESS")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    new = {**quiet, "include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    try:
        if named:
            _check_listening(named)
            ray.init(named, **(new if named == "local" else quiet))
        else:
            try:
                ray.init("auto", **quiet)
            except ConnectionError:
                ray.init("local", **new)
    except Exception as fault:  # Ray raises plain Exceptions if a machine is too slow to start it
        reason = " ".join(str(fault).split())
        raise ClusterError(
            f"the Ray cluster {named or 'on this machine'} cannot be reached: {reason}"
        ) from fault
    try:
        yield
    finally:
        ray.shutdown()


def _check_listening(address: str) -> None:
    """OSError at once if nothing listens there; Ray would keep trying for a quarter of an hour."""
    where = urlsplit(address if "://" in address else f"//{address}")
    if where.hostname and where.port:
        socket.create_connection((where.hostname, where.port), _ANSWER_SECONDS).close()


def cluster_cores() -> int:
    """The CPUs of all machines in the cluster, as Ray counts them."""
    return sum(_cores())


def machine_cores() -> int:
    """The CPUs of the cluster's largest machine."""
    return max(_cores(), default=0)


def room_for(threads: int) -> int:
    """How many processes with this many threads fit onto the cluster at once."""
    return sum(cores // threads for cores in _cores())


def one_line(fault: Exception) -> str:
    """The message of a Ray error, without its traceback."""
    import ray

    lines = str(fault).strip().splitlines() or [type(fault).__name__]
    # The message of an error in a task begins with Ray's name for the task and ends with the error.
    return lines[-1 if isinstance(fault, ray.exceptions.RayTaskError) else 0]


def _cores() -> list[int]:
    import ray

    return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]


def on_ray(
    job: Job,
    parts: Sequence[Part],
    actors: int | tuple[int, int] | None,
    address: str | None,
) -> Generator[Report]:
    """Run the parts on a cluster, yielding each one's report as it finishes. ClusterError."""
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
        rows.context.execution_no_progress_timeout_s = -1  # a part may take any length of time
        rows.context.max_consecutive_actor_init_deaths = TRIES
        done = rows.map_batches(
            _Actor,
            fn_constructor_kwargs={"job": job},
            batch_size=1,
            num_cpus=job.threads or 1,
            # One part at a time: a queued second one would not move to another, idle actor.
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
                f"Ray could not continue ({one_line(fault)}). Finished parts are kept: run the "
                "same command again to resume."
            ) from fault


class _Actor:
    """A worker in a process of its own."""

    def __init__(self, job: Job) -> None:
        # By default, the tokenizer would use as many threads as the machine has cores.
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
    """The smallest and largest number of actors, at most one for each part."""
    room = room_for(threads)
    if not room and not isinstance(actors, tuple):  # Ray would wait for them forever
        raise ClusterError(
            f"no machine of the Ray cluster has {threads} cores for an engine's threads (the "
            f"largest has {machine_cores()}): use fewer --threads, or --actors MIN:MAX if the "
            "cluster grows."
        )
    actors = room if actors is None else actors
    smallest, largest = (actors, actors) if isinstance(actors, int) else actors
    if not 1 <= smallest <= largest:
        raise ClusterError(
            f"actors must be an integer of at least 1, or a range of them, not {actors!r}."
        )
    return min(smallest, parts), min(largest, parts)


def _quieten() -> None:
    """Keep Ray Data's messages off the terminal; its log files still have them."""
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.ERROR)


def ray_executor(*, address: str | None = None, threads: int | None = None) -> SeedExecutor:
    """A `SeedExecutor` that runs seeds in parallel on a Ray cluster (see `ray_cluster`).

    Each seed uses ``threads`` CPU threads; by default, the cluster's cores are divided among the
    seeds. A seed gives the same result as in a single process with as many threads; with another
    number of threads, sums are added up in another order. Raises ClusterError and
    MissingExtraError.
    """
    need_extra("engine 'ray'", "ray", extra="scale")

    def executor(
        function: Callable[..., Any],
        arguments: Mapping[int, Mapping[str, Any]],
        progress: Progress,
    ) -> Iterator[tuple[int, Any]]:
        if arguments:
            with ray_cluster(address):
                yield from _tasks(function, arguments, threads, progress)

    return executor


def _tasks(
    function: Callable[..., Any],
    arguments: Mapping[int, Mapping[str, Any]],
    threads: int | None,
    progress: Progress,
) -> Iterator[tuple[int, Any]]:
    import ray

    if any(given.get("metric") is not None for given in arguments.values()):
        raise ClusterError(
            "a metric of your own cannot be sent to a Ray cluster: leave metric out, or run the "
            "seeds in this process."
        )
    used = threads or max(1, min(machine_cores(), cluster_cores() // len(arguments)))
    if threads and not room_for(threads):  # Ray would wait forever
        raise ClusterError(
            f"no machine of the Ray cluster has {threads} cores for a seed's threads (the largest "
            f"has {machine_cores()}): use fewer --threads."
        )
    task: Any = ray.remote(num_cpus=used, max_retries=_RETRIES)(_run)
    waiting = {
        task.remote(function, _whole_paths(given), used): seed for seed, given in arguments.items()
    }
    progress("seeds", 0, len(arguments))
    try:
        while waiting:
            (done, *_), _ = ray.wait(list(waiting), num_returns=1)
            seed = waiting.pop(done)
            try:
                result, error = ray.get(done)
            except ray.exceptions.RayError as fault:
                raise ClusterError(
                    f"seed {seed} could not continue ({one_line(fault)}). Run the same command "
                    "again to resume."
                ) from fault
            if error:
                raise ClusterError(f"seed {seed}: {error}")
            yield seed, result
            progress("seeds", len(arguments) - len(waiting), len(arguments))
    finally:
        for each in waiting:
            ray.cancel(each, force=True)


def _run(
    function: Callable[..., Any], arguments: Mapping[str, Any], threads: int
) -> tuple[Any, str]:
    """The function's result, and the message of a SparsebertError, "" if none was raised."""
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(threads)
    if arguments.get("threads", threads) is None:  # our engine would use all cores
        arguments = {**arguments, "threads": threads}
    try:
        return function(**arguments), ""
    except SparsebertError as fault:
        return None, str(fault)


def _whole_paths(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with absolute paths; text that is not an existing path may be a hub id."""
    return {
        name: str(Path(value).absolute())
        if name in _PATHS and (isinstance(value, Path) or (value and Path(value).exists()))
        else value
        for name, value in arguments.items()
    }
