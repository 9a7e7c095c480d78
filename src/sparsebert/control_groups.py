"""Linux control groups (versions 1 and 2), by which a container limits its processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class ControlGroup(NamedTuple):
    """A group of ``version`` 1 or 2, whose files are in ``folder``."""

    version: int
    folder: Path


def control_groups(controller: str, root: Path = Path("/")) -> Iterator[ControlGroup]:
    """The groups that contain this process, for a controller such as "memory"; parents last."""
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        version, base = 2, root / "sys/fs/cgroup"
        if controllers:
            version, base = 1, base / controller
            if controller not in controllers.split(","):
                continue
        # Inside a container, the path is often the host's, and only the root exists.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            yield ControlGroup(version, base.joinpath(*parts[:depth]))


def cpu_limit(root: Path = Path("/")) -> float | None:
    """How many CPUs' time this process may use at most; None without a limit.

    That is what `docker run --cpus` and Kubernetes' ``limits.cpu`` set.
    """
    limits = []
    for version, folder in control_groups("cpu", root):
        names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        numbers = [word for name in names for word in read_text(folder / name).split()]
        # Without a limit, the quota is "max" or -1.
        if len(numbers) == 2 and all(each.isdecimal() for each in numbers) and int(numbers[1]):
            limits.append(int(numbers[0]) / int(numbers[1]))
    return min(limits, default=None)


def read_text(path: Path) -> str:
    """What a file of the system says; "" if it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
