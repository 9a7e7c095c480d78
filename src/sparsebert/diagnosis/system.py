"""The machine: what a bug report needs to say about it, and how much memory is available.

Memory is that of the machine, or less if a container's control group limits it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sparsebert.control_groups import control_groups, read_text
from sparsebert.engine import available_instruction_sets, default_threads
from sparsebert.machine import describe_machine

_LIBRARIES = (
    "numpy",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "pyarrow",
    "scikit-learn",
    "scipy",
)
_VARIABLES = (
    "SPARSEBERT_ISA",
    "SPARSEBERT_NUM_THREADS",
    "SPARSEBERT_INT8_KERNEL",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TOKENIZERS_PARALLELISM",
    "HF_HUB_OFFLINE",
)
_UNLIMITED = 1 << 60  # cgroup v1 writes a number near 2**63 if there is no limit


def describe_system() -> dict[str, str]:
    """CPU, memory, threads, versions and settings for a bug report; no path, user or host name."""
    memory = available_memory()
    return {
        **describe_machine(),
        "instruction_sets": ", ".join(available_instruction_sets()),
        "threads": str(default_threads()),
        "memory": (
            "not known"
            if memory is None
            else f"{memory.free / 1e9:.1f} GB free of the {memory.limit}'s {memory.total / 1e9:.1f}"
        ),
        **{name: _version(name) for name in _LIBRARIES},
        **{name: os.environ.get(name, "not set") for name in _VARIABLES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True)
class AvailableMemory:
    """``free`` bytes of ``total``, and what sets the limit: "machine" or "container"."""

    free: int
    total: int
    limit: str


def available_memory(root: Path = Path("/")) -> AvailableMemory | None:
    """The memory that can be allocated without swapping; None if the system does not say.

    On Linux, MemAvailable of /proc/meminfo, or what is left of the limits of this process's control
    groups (versions 1 and 2, with all their parents) if that is less; page cache that can be
    dropped counts as free. Elsewhere psutil is asked, if it is installed.
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
    for line in read_text(root / "proc/meminfo").splitlines():
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
    """Free bytes and limit of each control group that contains this process and has a limit."""
    found = []
    for group in control_groups("memory", root):
        names = ("memory.max", "memory.current", "inactive_file")
        if group.version == 1:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        limit, used = (_number(group.folder / name) for name in names[:2])
        if limit is not None and used is not None and limit < _UNLIMITED:
            cached = _statistic(group.folder / "memory.stat", names[2])
            found.append((limit - used + cached, limit))
    return found


def _statistic(path: Path, name: str) -> int:
    for line in read_text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdecimal():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = read_text(path).strip()
    return int(text) if text.isdecimal() else None  # "max" if there is no limit
