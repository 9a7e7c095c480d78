"""The arithmetic of an encoder in torch, one step at a time, without padding.

Calibration looks between the steps of a layer, with one layer's weights in memory at a time, so
the steps are functions of a checkpoint's memory-mapped tensors. Token vectors are float32
``[tokens, width]``, all texts end to end; only positions and attention depend on where one begins.
`EncoderConfig` says what a family does differently from BERT.

Forward hooks in transformers' own layers would make this arithmetic unnecessary. Tried with Wanda
on MiniLM and 128 texts, they gave the same masks, but took four times the processor time and a
fifth more memory: a hook sees a linear layer only in a whole pass, so each of a layer's four steps
repeats everything before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sparsebert.checkpoint.architecture import RELATIVE_BIAS, RELATIVE_EMBEDDINGS
from sparsebert.checkpoint.disentangled_attention import (
    CONTENT_TO_POSITION,
    POSITION_TO_CONTENT,
    DisentangledAttention,
)
from sparsebert.checkpoint.folder import Checkpoint
from sparsebert.pruning.calibration_set import CalibrationSet

if TYPE_CHECKING:
    import torch

Step = Callable[["torch.Tensor"], "torch.Tensor"]

_FARTHEST = 128  # tokens; MPNet's bias is the same for all larger distances


def tensor(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    """A checked copy of one of the checkpoint's tensors in float32, by canonical name."""
    import torch

    return torch.from_numpy(np.array(checkpoint.finite_weight(name)))


def bias(checkpoint: Checkpoint, layer: str) -> torch.Tensor | None:
    """The bias of a linear layer or LayerNorm, None if it has none."""
    name = f"{layer}.bias"
    return tensor(checkpoint, name) if name in checkpoint.used else None


def embed(checkpoint: Checkpoint, texts: CalibrationSet) -> torch.Tensor:
    """What enters the first layer, ``[tokens, hidden]``."""
    import torch

    config = checkpoint.config
    table = "embeddings.{}_embeddings.weight".format
    summed = tensor(checkpoint, table("word"))[torch.from_numpy(texts.ids)]
    if config.position_table:
        padding = config.pad_token_id if config.family.positions == "counted" else None
        summed += tensor(checkpoint, table("position"))[_positions(texts, padding)]
    if config.token_types:
        summed += tensor(checkpoint, table("token_type"))[torch.from_numpy(texts.type_ids)]
    if config.task_types:
        summed += tensor(checkpoint, table("task_type"))[0]
    normed = layer_norm(checkpoint, "embeddings.LayerNorm")(summed)
    projection = "embeddings.projection"
    if not config.projects:
        return normed
    weight = tensor(checkpoint, f"{projection}.weight")
    return torch.nn.functional.linear(normed, weight, bias(checkpoint, projection))


def _positions(texts: CalibrationSet, padding: int | None) -> torch.Tensor:
    """Each token's row in the position table, int64 ``[tokens]``.

    Counted from 0. With a ``padding`` id, rows are counted from the one after it, and tokens with
    that id are not counted but take the row ``padding``.
    """
    import torch

    if padding is None:
        return torch.cat([torch.arange(length) for length in texts.lengths])
    counts = torch.from_numpy(texts.ids != padding).long()
    counted = torch.cat([row.cumsum(0) for row in torch.split(counts, texts.lengths)])
    return counted * counts + padding


def layer_norm(checkpoint: Checkpoint, name: str) -> Step:
    """The named LayerNorm."""
    import torch

    weight = tensor(checkpoint, f"{name}.weight")
    shift = bias(checkpoint, name)
    epsilon = checkpoint.config.layer_norm_eps
    return lambda x: torch.nn.functional.layer_norm(x, weight.shape, weight, shift, epsilon)


def activation(name: str) -> Step:
    """The activation function with this name, such as config.json's ``hidden_act``."""
    import torch

    if name == "relu":
        return torch.nn.functional.relu
    if name == "silu":
        return torch.nn.functional.silu
    if name == "tanh":
        return torch.tanh
    approximate = "none" if name == "gelu" else "tanh"
    return lambda x: torch.nn.functional.gelu(x, approximate=approximate)


class Attention:
    """Self-attention of one layer, within each text."""

    def __init__(self, checkpoint: Checkpoint, number: int) -> None:
        config = checkpoint.config
        self._heads = config.num_attention_heads
        self._window = config.attention[number].window
        self._theta = config.attention[number].theta
        self._factor = config.attention[number].factor
        self._bias = tensor(checkpoint, RELATIVE_BIAS) if config.relative_buckets else None
        self._slopes = config.slopes
        self._disentangled = config.disentangled

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        groups: Sequence[tuple[int, int]],
        of_distances: Sequence[torch.Tensor] = (),
    ) -> torch.Tensor:
        """softmax(q k^T / sqrt(d) + bias) v over the tokens in reach, ``[tokens, hidden]``.

        ``groups`` are ``(sequences, length)`` as in `CalibrationSet.parts`. ``of_distances`` is for
        disentangled attention: the outputs of the query and key layers for `distance_embeddings`.
        """
        import torch

        context = torch.empty_like(query)
        first = 0
        for rows, length in groups:
            part = slice(first, first := first + rows * length)
            q, k, v = (
                x[part].view(rows, length, self._heads, -1).transpose(1, 2)
                for x in (query, key, value)
            )
            if self._theta is not None:
                q, k = (_rotated(x, self._theta, self._factor) for x in (q, k))
            mask, scale = self._mask(length), None
            if self._disentangled:
                scale = 1 / math.sqrt(q.shape[-1] * (1 + len(self._disentangled.terms)))
                mask = scale * self._distance_scores(self._disentangled, q, k, of_distances)
            found = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, scale=scale
            )
            context[part] = found.transpose(1, 2).reshape(rows * length, -1)
        return context

    def _mask(self, length: int) -> torch.Tensor | None:
        """What is added to the scores ``[heads, length, length]``, or bool: which tokens are seen.

        None if every token sees every other.
        """
        import torch

        positions = torch.arange(length)
        distance = positions - positions[:, None]  # of a key from its query
        if self._bias is not None:
            return self._bias[distance_buckets(distance, len(self._bias))].permute(2, 0, 1)
        if self._slopes:
            return distance.abs() * -torch.tensor(self._slopes)[:, None, None]
        return None if self._window is None else distance.abs() <= self._window

    def _distance_scores(
        self,
        attention: DisentangledAttention,
        query: torch.Tensor,
        key: torch.Tensor,
        of_distances: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """DeBERTa's scores by distance ``[sequences, heads, length, length]``, not yet scaled."""
        import torch

        length = query.shape[-2]
        positions = torch.arange(length)
        rows = distance_rows(positions[:, None] - positions, attention)
        queries, keys = (
            x.view(len(x), self._heads, -1).permute(1, 2, 0) for x in of_distances
        )  # [heads, size, rows]
        scores = query.new_zeros(*query.shape[:-1], length)
        if CONTENT_TO_POSITION in attention.terms:
            scores += (query @ keys).gather(-1, rows.expand_as(scores))
        if POSITION_TO_CONTENT in attention.terms:
            found = (key @ queries).gather(-1, rows.T.expand_as(scores))
            scores += found.transpose(-1, -2)
        return scores


def distance_embeddings(checkpoint: Checkpoint) -> torch.Tensor | None:
    """DeBERTa's embeddings of distances as layers read them; None for other families."""
    disentangled = checkpoint.config.disentangled
    if disentangled is None:
        return None
    rows = tensor(checkpoint, RELATIVE_EMBEDDINGS)
    name = RELATIVE_EMBEDDINGS.removesuffix("weight") + "LayerNorm"
    return layer_norm(checkpoint, name)(rows) if disentangled.norm else rows


def distance_rows(distance: torch.Tensor, attention: DisentangledAttention) -> torch.Tensor:
    """Row of `distance_embeddings` for each distance of a query from a key (int64)."""
    import torch

    far = distance.abs()
    middle, span = attention.buckets // 2, attention.rows // 2
    bucket = far
    if attention.buckets:
        share = torch.log(far.clamp(min=1).double() / middle)
        share = share / math.log((attention.farthest - 1) / middle)
        wide = middle + (share * (middle - 1)).ceil().long()
        bucket = torch.where(far <= middle, far, wide)
    return (distance.sign() * bucket + span).clamp(0, attention.rows - 1)


def _rotated(vectors: torch.Tensor, theta: float, factor: float) -> torch.Tensor:
    """Rotary positions: dimensions i and i + d/2 of ``[..., length, d]`` are rotated as a pair.

    At position p, by p theta^(-2i/d) / factor radians.
    """
    import torch

    length, width = vectors.shape[-2:]
    speed = 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float) / width) / factor
    angle = torch.arange(length, dtype=torch.float)[:, None] * speed
    cos, sin = angle.cos(), angle.sin()
    one, other = vectors.chunk(2, dim=-1)
    return torch.cat((one * cos - other * sin, other * cos + one * sin), dim=-1)


def distance_buckets(distance: torch.Tensor, buckets: int) -> torch.Tensor:
    """Row of the bias table for each distance (int64), as T5 and MPNet bucket them.

    Half of the rows are for tokens further to the right. The first half of each half are for one
    distance each; the others widen with the logarithm of the distance, up to `_FARTHEST`.
    """
    import torch

    half = buckets // 2
    exact = half // 2
    far = distance.abs()
    share = torch.log(far.clamp(min=1).float() / exact) / math.log(_FARTHEST / exact)
    wide = (exact + (share * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(far < exact, far, wide) + half * (distance > 0)
