"""The attention implementation that trains fastest on rows of some lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# On a CPU torch's fused attention computes its backward pass far slower than plain matrix products,
# but it saves memory. MiniLM in bf16, processor time of forward and backward with fused attention
# over that with plain: 1.31 at 32 tokens, 1.27 at 128, 1.17 at 256, 1.01 at 320 (with dropout 1.06,
# 1.09 and 1.17: the CPU has no fused attention with dropout, and computes it plainly there too).
# What plain attention keeps for the backward pass grows with the square of the length, hence not
# further than this.
LONGEST_PLAIN = 256  # tokens


def choose_attention(model: PreTrainedModel, lengths: npt.NDArray[np.integer[Any]]) -> None:
    """Let ``model`` compute attention in the fastest way, unless its family has only one."""
    if model._supports_sdpa:
        model.set_attn_implementation(fastest_attention(lengths))


def fastest_attention(lengths: npt.NDArray[np.integer[Any]]) -> str:
    """transformers' name of it; ``lengths`` are the tokens of each row, int ``[rows]``.

    What counts is how long the row of a token is on average: Σ n² / Σ n.
    """
    import torch

    if torch.cuda.is_available():
        return "sdpa"
    tokens = lengths.astype(np.float64)
    return "eager" if (tokens**2).sum() <= LONGEST_PLAIN * tokens.sum() else "sdpa"
