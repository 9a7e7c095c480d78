"""What a loaded model's weights are and how much they weigh."""

from __future__ import annotations

from collections.abc import Mapping

from sparsebert.packing import Weight, parts_of

Weights = Mapping[str, Weight]
_DTYPE_NAMES = {"float32": "fp32", "float16": "fp16"}


def bytes_held(weights: Weights) -> int:
    """Bytes of all weights; memory that two names share (a tied decoder) counts once."""
    sizes = {
        (array.__array_interface__["data"][0], array.nbytes): array.nbytes
        for weight in weights.values()
        for array in parts_of(weight).values()
    }
    return sum(sizes.values())


def describe_storage(weights: Weights) -> str:
    """In a word or two how the encoder's matrices are kept, for example ``1:2 fp32``."""
    patterns, dtypes = [], set()
    for name, weight in weights.items():
        parts = parts_of(weight)
        values = parts.get("values", parts.get(""))
        if name.startswith("encoder.") and values is not None and values.ndim > 1:
            patterns.append(getattr(weight, "pattern", None))  # a plain array has none
            dtypes.add(str(values.dtype))
    pruned = [str(pattern) for pattern in patterns if pattern is not None]
    partly = 0 < len(pruned) < len(patterns)
    share = f" ({len(pruned)} of {len(patterns)} layers)" if partly else ""
    kinds = "+".join(sorted(set(pruned))) or "dense"
    names = "+".join(_DTYPE_NAMES.get(dtype, dtype) for dtype in sorted(dtypes))
    return f"{kinds}{share} {names}"
