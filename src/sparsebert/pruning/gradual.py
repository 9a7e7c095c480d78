"""Gradual pruning: while a model trains, more and more of its groups are forced to the pattern.

From step t0 to step t1, the share of the full sparsity that a model has after step t rises by the
cubic of Zhu & Gupta (2017, "To prune, or not to prune", arXiv 1710.01878):

    s(t) = 1 - (1 - (t - t0) / (t1 - t0))^3

It rises quickly at first, while there is much to spare, and then ever more slowly. They prune
single weights. Here every group of M must keep N in the end, so what rises is the share of groups
that are *forced* to the pattern: those that lose least by it, where the loss is the sum of the
scores that are pruned. The other groups are still dense, so the way from dense to N:M is smooth.

Groups compete within their layer, not with those of other layers: at t1 every layer is forced as a
whole anyway, and a common order would leave the layers with large weights dense until shortly
before t1, with the most to lose and the least time to recover. Prune Once for All (Zafrir et al.,
2021, arXiv 2111.05754) also prunes each layer evenly.

Masks are recomputed from new scores at every update, including those of groups that were already
forced: until t1, a pruned weight may come back. The method "gradual" scores by magnitude, as both
papers do; "snip-momentum" uses another score with the same schedule. Cost: a partial sort of each
layer's groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sparsebert.checkpoint.folder import Checkpoint
from sparsebert.errors import PatternError, TrainingError
from sparsebert.patterns import (
    Array,
    BoolMatrix,
    Matrix,
    Pattern,
    grouped,
    is_whole,
    mask_from_scores,
    spread_over_rows,
    sum_over_blocks,
)

PRUNING_SHARE = 0.5  # of the steps after warm-up; the rest trains the final masks
_UPDATES = 50  # in a run, at most; Zhu & Gupta found that their number hardly matters
_LEAST_STEPS = 4  # fewer are not gradual


@dataclass(frozen=True)
class SparsitySchedule:
    """When masks are updated, counted in optimiser steps done: from ``start`` (t0, all dense) every
    ``interval`` steps to ``end`` (t1, when they are whole and locked) of ``steps`` in all.
    """

    start: int
    end: int
    interval: int
    steps: int

    @classmethod
    def of_run(cls, steps: int, warmup_steps: int) -> SparsitySchedule:
        """The schedule of a run of ``steps`` optimiser steps.

        It begins after the learning rate's warm-up and takes `PRUNING_SHARE` of what is left.
        Raises TrainingError if that is too short to prune gradually.
        """
        length = int((steps - warmup_steps) * PRUNING_SHARE)
        if length < _LEAST_STEPS:
            least = warmup_steps + int(_LEAST_STEPS / PRUNING_SHARE)
            raise TrainingError(
                f"a run of {steps} steps ({warmup_steps} of them warm-up) is too short to prune "
                f"gradually, which takes {least}: use more epochs or a smaller batch, or prune "
                "first and fine-tune with the method lock."
            )
        return cls(warmup_steps, warmup_steps + length, -(-length // _UPDATES), steps)

    def updates(self, step: int) -> bool:
        """Whether masks are updated once ``step`` steps are done."""
        if not self.start < step <= self.end:
            return False
        return step == self.end or (step - self.start) % self.interval == 0

    def share(self, step: int) -> float:
        """s(t), the share of groups that are forced once ``step`` steps are done."""
        way = min(max((step - self.start) / (self.end - self.start), 0.0), 1.0)
        return 1 - (1 - way) ** 3


def layers_to_prune(
    checkpoint: Checkpoint, masks: Mapping[str, BoolMatrix], pattern: Pattern
) -> dict[str, tuple[int, int]]:
    """Shapes of the encoder's dense layers by canonical name; ``masks`` are those of the others.

    PatternError if the pattern does not divide one of them, if an already sparse layer does not fit
    it, or if all are already sparse.
    """
    for name, mask in masks.items():
        if not is_whole(mask, pattern):
            raise PatternError(
                f"layer '{name}' is already sparse, but not {pattern}: use the pattern it has, or "
                "start from the dense model."
            )
    dense = [layer for layer in checkpoint.linear_layers(("encoder",)) if layer.name not in masks]
    if not dense:
        raise PatternError(
            f"all encoder layers of {checkpoint.path} are already sparse: fine-tune it with the "
            "method lock."
        )
    for layer in dense:
        layer.check_divides(pattern)
    return {layer.name: (layer.rows, layer.columns) for layer in dense}


def forced_count(share: float, groups: int) -> int:
    """How many of ``groups`` are forced: ``share`` of them, rounded half up."""
    return int(share * groups + 0.5)


def forced_mask(scores: Matrix, pattern: Pattern, share: float) -> BoolMatrix:
    """The mask of a layer in which ``share`` of the groups are forced to ``pattern``.

    ``scores`` is float ``[rows, columns]`` without NaN, the mask bool of its shape. A forced group
    keeps its n highest scores, any other keeps all. Those with the smallest sum of pruned scores
    are forced; ties go to the upper row, then to the left. In a block of rows that share their
    inputs, a group spans all rows. PatternError if m does not divide the columns.
    """
    mask = mask_from_scores(scores, pattern)
    pruned = grouped(np.where(mask, scores.dtype.type(0), scores), pattern)
    losses = pruned[..., 0].copy()
    for member in range(1, pattern.m):  # faster than a sum over a short axis
        losses += pruned[..., member]
    losses = sum_over_blocks(losses, pattern)
    forced = _least(losses.ravel(), forced_count(share, losses.size)).reshape(losses.shape)
    mask |= ~np.repeat(spread_over_rows(forced, pattern, len(mask)), pattern.m, axis=1)
    return mask


def _least(losses: Array, count: int) -> BoolMatrix:
    """Mark the ``count`` smallest of ``[groups]``; ties go to the left."""
    if count == 0:
        return np.zeros(losses.shape, bool)
    limit = np.partition(losses, count - 1)[count - 1]
    least: BoolMatrix = losses < limit
    tied = np.flatnonzero(losses == limit)
    least[tied[: count - np.count_nonzero(least)]] = True
    return least
