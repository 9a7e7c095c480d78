"""How much memory this process may still take: the machine's, and its container's limit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 1 << 60  # cgroup v1 writes a number near 2**63 where there is no limit


@dataclass(frozen=True)
class AvailableMemory:
    """``free`` bytes of ``total``, and what sets the limit: "machine" or "container"."""

    free: int
    total: int
    limit: str


def available_memory(root: Path = Path("/")) -> AvailableMemory | None:
    """What can be had without swapping; None where the system does not tell.

    On Linux MemAvailable of /proc/meminfo, and what the control groups of this process (versions 1
    and 2, with all their parents) leave of their limits, page cache that can be dropped counted as
    free. Elsewhere by psutil, if it is installed.
    """
    machine = _machine(root)
    if machine is None:
        return None
    for free, total in _groups(root):
        if free < machine.free:
            machine = AvailableMemory(max(free, 0), total, "container")
    return machine


def _machine(root: Path) -> AvailableMemory | None:
    fields = {}
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        number = value.split()[:1]
        if number and number[0].isdecimal():
            fields[name] = int(number[0]) * 1024
    if "MemAvailable" in fields and "MemTotal" in fields:
        return AvailableMemory(fields["MemAvailable"], fields["MemTotal"], "machine")
    try:
        import psutil
    except ImportError:
        return None
    memory = psutil.virtual_memory()
    return AvailableMemory(int(memory.available), int(memory.total), "machine")


def _groups(root: Path) -> list[tuple[int, int]]:
    """Free bytes and limit of each control group above this process that has a limit."""
    found = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # Inside a container the path is often the host's, and only the root itself is there.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            group = base.joinpath(*parts[:depth])
            limit, used = (_number(group / name) for name in names[:2])
            if limit is not None and used is not None and limit < _UNLIMITED:
                found.append((limit - used + _statistic(group / "memory.stat", names[2]), limit))
    return found


def _statistic(path: Path, name: str) -> int:
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdecimal():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None  # "max" where there is no limit


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
