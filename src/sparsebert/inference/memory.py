"""What a loaded model's weights are and how much they weigh."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsebert.patterns import Compressed

Weights = Mapping[str, npt.NDArray[Any] | Compressed]
_DTYPE_NAMES = {"float32": "fp32", "float16": "fp16"}


def bytes_held(weights: Weights) -> int:
    """Bytes of all weights; memory that two names share (a tied decoder) counts once."""
    sizes = {
        (array.__array_interface__["data"][0], array.nbytes): array.nbytes
        for array in _arrays(weights)
    }
    return sum(sizes.values())


def describe_storage(weights: Weights) -> str:
    """In a word or two how the encoder's matrices are kept, for example ``1:2 fp32``."""
    layers = [
        weight
        for name, weight in weights.items()
        if name.startswith("encoder.") and (isinstance(weight, Compressed) or weight.ndim == 2)
    ]
    pruned = [weight for weight in layers if isinstance(weight, Compressed)]
    patterns = sorted({str(weight.pattern) for weight in pruned})
    dtypes = sorted(
        {
            str(weight.values.dtype if isinstance(weight, Compressed) else weight.dtype)
            for weight in layers
        }
    )
    share = f" ({len(pruned)} of {len(layers)} layers)" if 0 < len(pruned) < len(layers) else ""
    kinds = "+".join(patterns) or "dense"
    return f"{kinds}{share} {'+'.join(_DTYPE_NAMES.get(dtype, dtype) for dtype in dtypes)}"


def _arrays(weights: Weights) -> Iterator[npt.NDArray[np.generic]]:
    for weight in weights.values():
        if isinstance(weight, Compressed):
            yield weight.values
            yield weight.bits
        else:
            yield weight
