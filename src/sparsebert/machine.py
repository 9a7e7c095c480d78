"""The machine that a measurement was taken on."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from pathlib import Path

from sparsebert import __version__
from sparsebert.engine import instruction_set


def describe_machine() -> dict[str, str]:
    """CPU, cores, the instruction set our engine runs on, system, versions and the time (UTC)."""
    return {
        "cpu": cpu_name(),
        "cores": str(available_cores()),
        "instruction_set": instruction_set(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "sparsebert": __version__,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def cpu_name() -> str:
    """The CPU's name where the system reports it, else its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """The CPU's features as Linux names them (``avx512_vnni``); empty on other systems."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("flags"):
                return set(line.partition(":")[2].split())
    except OSError:
        pass
    return set()


def available_cores() -> int:
    """Cores that this process may use; in a container, perhaps fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
