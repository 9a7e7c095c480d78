"""What makes a training step fast on a CPU: bfloat16, memory that is kept, plain attention.

bfloat16 has float32's range and 8 bits of its precision. Autocast computes matrix products in it
and leaves weights, optimiser state, gradients and what is summed up in float32, so training does
not notice; a processor with AVX512-BF16 or AMX multiplies it at twice float32's rate and more. One
without computes it in software, slower than float32: there "auto" stays with float32.

A training step allocates and frees the same few hundred large blocks each time. glibc maps a block
above 32 MiB afresh and unmaps it when freed, and trims the end of its heap likewise; the kernel
then hands out every page zeroed, one fault a page. Keeping the memory saved 5 to 10 percent of the
processor time of a step on short texts (MiniLM, 32 of 32 tokens) and 23 percent on long ones (8 of
320), where attention probabilities are such blocks. On texts of one length the peak stays the
same; a long run over texts of many lengths grew to several times that (5 GB for MiniLM on
250,000 texts, 32 at a time; 15 GB on windows of up to 384 tokens), for blocks of ever other sizes
leave gaps. So what is free goes back when the process holds much more than a step takes
(`MemoryCallback`).
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
    # Not public in torch 2.13, and so read with a default; without them float32 is never wrong.
    flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, flag, lambda: False)() for flag in flags)


def resolve_precision(wanted: str) -> str:
    """ "fp32" or "bf16", for an option that may be "auto". TrainingError if bf16 cannot be had."""
    if wanted == "auto":
        return "bf16" if native_bf16() else "fp32"
    if wanted == "bf16" and not torch.cuda.is_available() and not _cpu_can_bf16():
        raise TrainingError("this CPU has no instructions for bf16: use precision fp32 or auto.")
    return wanted


def device_type() -> str:
    """The kind of device that forward passes run on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def autocast(precision: str) -> contextlib.AbstractContextManager[object]:
    """The context in which a forward pass runs."""
    return torch.autocast(device_type(), dtype=torch.bfloat16, enabled=precision == "bf16")


def _cpu_can_bf16() -> bool:
    """oneDNN multiplies bfloat16 from AVX-512 on, natively or by conversion."""
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported


# Of glibc's malloc.h, and where its own thresholds end up as they adapt to large blocks.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_TRIM_THRESHOLD, _MMAP_MAX = 64 << 20, 65536
_NEVER = (1 << 31) - 1


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside, glibc's allocator keeps what it has; afterwards the unused part goes back.

    Nothing happens where the allocator is another one.
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
    """Give back to the system what glibc's allocator holds and nothing uses, gaps included."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def resident_memory() -> int:
    """Bytes of this process that are in memory; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def choose_attention(model: PreTrainedModel, lengths: npt.NDArray[np.integer[Any]]) -> None:
    """Let ``model`` compute attention in the fastest way, unless its family has only one."""
    if model._supports_sdpa:
        model.set_attn_implementation(fastest_attention(lengths))


def fastest_attention(lengths: npt.NDArray[np.integer[Any]]) -> str:
    """transformers' name of it; ``lengths`` are the tokens of each example, int ``[examples]``.

    What counts is how long the example of a token is on average: Σ n² / Σ n.
    """
    import torch

    if torch.cuda.is_available():
        return "sdpa"
    tokens = lengths.astype(np.float64)
    return "eager" if (tokens**2).sum() <= LONGEST_PLAIN * tokens.sum() else "sdpa"
