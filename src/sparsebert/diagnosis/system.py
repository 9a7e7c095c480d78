"""What a bug report should say of the machine: CPU, memory, threads, versions."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

from sparsebert.diagnosis.available_memory import available_memory
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


def describe_system() -> dict[str, str]:
    """Names and values of everything that a bug report needs; no path, user or host name."""
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
