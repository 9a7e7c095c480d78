"""Seeds as Ray tasks: `finetune_seeds` and `evaluate_seeds` on many machines.

    finetune_seeds("sparse/", "runs/", task="sst2", seeds=range(1, 6), executor=ray_executor())

Each machine must see the folders by the same path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sparsebert.errors import ClusterError, SparsebertError
from sparsebert.evaluation.seeds import SeedExecutor
from sparsebert.extras import need_extra
from sparsebert.progress import Progress
from sparsebert.scale.ray_cluster import (
    cluster_cores,
    machine_cores,
    one_line,
    ray_cluster,
    room_for,
)

_PATHS = ("model", "out", "data", "teacher", "unlabelled")
_RETRIES = 3  # of a seed whose machine went away; it goes on from its last checkpoint


def ray_executor(*, address: str | None = None, threads: int | None = None) -> SeedExecutor:
    """Seeds side by side on a Ray cluster (see `ray_cluster`), ``threads`` CPU threads for each.

    Without ``threads`` the cluster's cores are divided among the seeds. What a seed comes to is
    what it comes to alone with so many threads: other numbers round sums in another order.
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

    used = threads or max(1, min(machine_cores(), cluster_cores() // len(arguments)))
    if threads and not room_for(threads):  # it would be waited for in vain
        raise ClusterError(
            f"no machine of the Ray cluster has {threads} cores for a seed's threads (the largest "
            f"has {machine_cores()}): give fewer --threads."
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
                    f"seed {seed} could not go on ({one_line(fault)}). The same command goes on "
                    "from there."
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
    """What the function gives, and an error that is the user's to mend."""
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(threads)
    if arguments.get("threads", threads) is None:  # our engine would take all cores
        arguments = {**arguments, "threads": threads}
    try:
        return function(**arguments), ""
    except SparsebertError as fault:
        return None, str(fault)


def _whole_paths(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with full paths, wherever a task stands; what is not there is a hub id."""
    return {
        name: str(Path(value).absolute())
        if name in _PATHS and (isinstance(value, Path) or (value and Path(value).exists()))
        else value
        for name, value in arguments.items()
    }
