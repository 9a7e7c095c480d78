"""Reaching a Ray cluster: the one that is named, one that runs here, or a new one for this job."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from sparsebert.errors import ClusterError

_ANSWER_SECONDS = 30.0
_OBJECT_STORE = 200 << 20  # bytes: rows never pass through it, only the names of parts do


@contextmanager
def ray_cluster(address: str | None = None) -> Iterator[None]:
    """Be connected to a cluster inside.

    A connection that the program has already is used, and left open. Without ``address`` it is
    RAY_ADDRESS, else a cluster that `ray start` began on this machine, else (as for "local") a new
    one with all of this machine's cores, which ends with the block. Raises ClusterError if it
    cannot be reached.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked to send anything anywhere
    named = address or os.environ.get("RAY_ADDRESS")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    new = {**quiet, "include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    try:
        if named:
            _see_that_it_listens(named)
            ray.init(named, **(new if named == "local" else quiet))
        else:
            try:
                ray.init("auto", **quiet)
            except ConnectionError:
                ray.init("local", **new)
    except Exception as fault:  # Ray's own are bare where a machine is too slow to start it
        reason = " ".join(str(fault).split())
        raise ClusterError(
            f"the Ray cluster {named or 'on this machine'} cannot be reached: {reason}"
        ) from fault
    try:
        yield
    finally:
        ray.shutdown()


def _see_that_it_listens(address: str) -> None:
    """OSError at once where nothing does: Ray would try for a quarter of an hour."""
    where = urlsplit(address if "://" in address else f"//{address}")
    if where.hostname and where.port:
        socket.create_connection((where.hostname, where.port), _ANSWER_SECONDS).close()


def cluster_cores() -> int:
    """CPUs of all machines of the cluster together, as Ray counts them."""
    return sum(_cores())


def machine_cores() -> int:
    """CPUs of its largest machine."""
    return max(_cores(), default=0)


def room_for(threads: int) -> int:
    """How many processes of so many threads it has room for at once."""
    return sum(cores // threads for cores in _cores())


def one_line(fault: Exception) -> str:
    """What a Ray error says, without its traceback."""
    import ray

    lines = str(fault).strip().splitlines() or [type(fault).__name__]
    # That of a task's own error begins with Ray's name for the task, and ends with the error.
    return lines[-1 if isinstance(fault, ray.exceptions.RayTaskError) else 0]


def _cores() -> list[int]:
    import ray

    return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
