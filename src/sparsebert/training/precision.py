"""Whether to multiply matrices in bfloat16 while training.

bfloat16 has float32's range and 8 bits of its precision. Autocast computes matrix products in it
and leaves weights, optimiser state, gradients and what is summed up in float32, so training does
not notice; a processor with AVX512-BF16 or AMX multiplies it at twice float32's rate and more. One
without computes it in software, slower than float32: there "auto" stays with float32.
"""

from __future__ import annotations

import contextlib

import torch

from sparsebert.errors import TrainingError


def native_bf16() -> bool:
    """Whether the device that training runs on multiplies bfloat16 in hardware."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Not public in torch 2.13, and so asked for politely; without them float32 is never wrong.
    flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, flag, lambda: False)() for flag in flags)


def resolve_precision(wanted: str) -> str:
    """ "fp32" or "bf16", for a wish that may be "auto". TrainingError if bf16 cannot be had."""
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
