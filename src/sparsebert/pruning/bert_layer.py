"""The arithmetic of a BERT encoder in torch, one step at a time, over rows without padding.

Calibration looks between the steps of a layer, and needs one layer's weights in memory at a time:
so the steps are functions of a checkpoint's memory-mapped tensors. Token vectors are float32
``[tokens, width]``, all rows end to end; only attention asks where a row begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sparsebert.checkpoint.folder import Checkpoint
from sparsebert.pruning.calibration_rows import CalibrationRows

if TYPE_CHECKING:
    import torch

Step = Callable[["torch.Tensor"], "torch.Tensor"]


def tensor(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    """A checked copy of one of the checkpoint's tensors in float32, by canonical name."""
    import torch

    return torch.from_numpy(np.array(checkpoint.finite_weight(name)))


def embed(checkpoint: Checkpoint, rows: CalibrationRows) -> torch.Tensor:
    """What enters the first layer, ``[tokens, hidden]``."""
    import torch

    positions = torch.cat([torch.arange(length) for length in rows.lengths])
    table = "embeddings.{}_embeddings.weight".format
    summed = tensor(checkpoint, table("word"))[torch.from_numpy(rows.ids)]
    summed += tensor(checkpoint, table("position"))[positions]
    summed += tensor(checkpoint, table("token_type"))[torch.from_numpy(rows.type_ids)]
    return layer_norm(checkpoint, "embeddings.LayerNorm")(summed)


def layer_norm(checkpoint: Checkpoint, name: str) -> Step:
    """The named LayerNorm."""
    import torch

    weight = tensor(checkpoint, f"{name}.weight")
    bias = tensor(checkpoint, f"{name}.bias")
    epsilon = checkpoint.config.layer_norm_eps
    return lambda x: torch.nn.functional.layer_norm(x, weight.shape, weight, bias, epsilon)


def activation(name: str) -> Step:
    """The function behind config.json's ``hidden_act``."""
    import torch

    if name == "relu":
        return torch.nn.functional.relu
    approximate = "none" if name == "gelu" else "tanh"
    return lambda x: torch.nn.functional.gelu(x, approximate=approximate)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    groups: Sequence[tuple[int, int]],
    heads: int,
) -> torch.Tensor:
    """Self-attention within each row: softmax(q k^T / sqrt(d)) v, ``[tokens, hidden]``.

    ``groups`` are ``(rows, length)`` as `CalibrationRows.parts` has them.
    """
    import torch

    context = torch.empty_like(query)
    first = 0
    for rows, length in groups:
        part = slice(first, first := first + rows * length)
        q, k, v = (
            x[part].view(rows, length, heads, -1).transpose(1, 2) for x in (query, key, value)
        )
        found = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        context[part] = found.transpose(1, 2).reshape(rows * length, -1)
    return context
