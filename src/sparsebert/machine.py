"""The machine that a measurement was taken on."""

from __future__ import annotations

import platform
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from sparsebert import __version__
from sparsebert.engine import available_cores, instruction_set


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
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """The CPU's features as Linux names them (``avx512_vnni``); empty on other systems."""
    return set(_cpuinfo("flags").split())


def _cpuinfo(key: str) -> str:
    """What Linux says of its first CPU under ``key``; "" if it does not, and on other systems."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return ""
