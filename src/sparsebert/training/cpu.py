"""What makes a training step fast on a CPU: bfloat16, memory that is kept, plain attention.

bfloat16 has float32's range and 8 bits of its precision. Autocast computes matrix products in it
and keeps weights, optimiser state, gradients and sums in float32, so the result of training hardly
changes. A processor with AVX512-BF16 or AMX multiplies bfloat16 at least twice as fast as float32.
Others emulate it, slower than float32, so "auto" stays with float32 there.

A training step allocates and frees the same few hundred large blocks each time. glibc maps each
block above 32 MiB separately and unmaps it when it is freed, and trims the end of its heap; the
kernel then zeroes every page again, with one fault per page. Keeping the memory saved 5 to 10
percent of a step's processor time on short texts (MiniLM, 32 texts of 32 tokens) and 23 percent on
long ones (8 of 320), where attention probabilities are such blocks. With texts of one length, peak
memory stays the same. A long run over texts of many lengths grew to several times that (5 GB for
MiniLM on 250,000 texts, 32 at a time; 15 GB on windows of up to 384 tokens), because blocks of
varying size leave gaps. So free memory is returned when the process holds much more than a step
takes (`MemoryCallback`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from sparsebert.errors import TrainingError
from sparsebert.training.defaults import LONGEST_PLAIN

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def native_bf16() -> bool:
    """Whether the device that training runs on multiplies bfloat16 in hardware."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Not public in torch 2.13, hence the default: without them, float32 is a safe choice.
    flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, flag, lambda: False)() for flag in flags)


def resolve_precision(wanted: str) -> str:
    """ "fp32" or "bf16" for an option that may be "auto". TrainingError if bf16 is unsupported."""
    if wanted == "auto":
        return "bf16" if native_bf16() else "fp32"
    if wanted == "bf16" and not torch.cuda.is_available() and not _cpu_can_bf16():
        raise TrainingError("this CPU does not support bf16: use precision fp32 or auto.")
    return wanted


def device_type() -> str:
    """The kind of device that forward passes run on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def autocast(precision: str) -> contextlib.AbstractContextManager[object]:
    """The context in which a forward pass runs."""
    return torch.autocast(device_type(), dtype=torch.bfloat16, enabled=precision == "bf16")


def _cpu_can_bf16() -> bool:
    """Whether oneDNN can multiply bfloat16, natively or by conversion: it needs AVX-512."""
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported


# From glibc's malloc.h, and the values that its thresholds reach as they adapt to large blocks.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_TRIM_THRESHOLD, _MMAP_MAX = 64 << 20, 65536
_NEVER = (1 << 31) - 1


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside, glibc's allocator keeps freed memory; afterwards it is returned to the system.

    With any other allocator, this does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_MAX, _MMAP_MAX)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
        release_free_memory()


def release_free_memory() -> None:
    """Return the unused memory in glibc's allocator to the system, gaps included."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def resident_memory() -> int:
    """The resident memory of this process in bytes; 0 if the system does not report it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def choose_attention(model: PreTrainedModel, lengths: npt.NDArray[np.integer[Any]]) -> None:
    """Set the fastest attention implementation for ``model``, unless it has only one."""
    if model._supports_sdpa:
        model.set_attn_implementation(fastest_attention(lengths))


def fastest_attention(lengths: npt.NDArray[np.integer[Any]]) -> str:
    """transformers' name for it; ``lengths`` has the tokens of each example, int ``[examples]``.

    The criterion is the mean length of the example that a token belongs to: Σ n² / Σ n.
    """
    if torch.cuda.is_available():
        return "sdpa"
    tokens = lengths.astype(np.float64)
    return "eager" if (tokens**2).sum() <= LONGEST_PLAIN * tokens.sum() else "sdpa"
