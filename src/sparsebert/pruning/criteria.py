"""What a weight is worth: the criteria by which the methods choose what to prune."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsebert.checkpoint.dtypes import Float32
from sparsebert.patterns import Pattern, mask_from_scores

if TYPE_CHECKING:
    import torch

    from sparsebert.pruning.calibration import Linear, Statistics

SALIENCY_DECAY = 0.9  # per optimiser step


def wanda(weight: Float32, input_norms: Float32) -> Float32:
    """``|W_ij| * ||X_j||_2``, float32 ``[rows, columns]``; ``input_norms`` is ``[columns]``.

    A weight matters by its size and by the strength of its input (Sun et al., 2023, "A Simple and
    Effective Pruning Approach for Large Language Models", section 3). This takes one pass over the
    calibration texts and changes no kept weight: O(rows x columns) besides that pass.
    """
    return np.abs(weight) * input_norms


def prune_by_wanda(layer: Linear, statistics: Statistics, *, pattern: Pattern) -> Linear:
    """The layer with the weights of the lowest scores in each group set to zero."""
    import torch

    # The root mean square over the tokens: the norm, except for a factor that all columns share.
    square = statistics.inputs.diagonal() + statistics.input_mean.square()
    found = wanda(layer.weight.numpy(), square.clamp(min=0).sqrt().numpy())
    mask = torch.from_numpy(mask_from_scores(found, pattern))
    return layer._replace(weight=torch.where(mask, layer.weight, 0.0), mask=mask)


def magnitude(weight: Float32) -> Float32:
    """|w|, float32 ``[rows, columns]``: small weights matter least.

    The oldest criterion (Han et al., 2015, "Learning both Weights and Connections for Efficient
    Neural Networks"), and the one that N:M recipes start from: it needs no data.
    """
    return np.abs(weight)


def accumulate_saliency(
    saliency: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor
) -> None:
    """SNIP with momentum: s <- 0.9 s + |w * dL/dw| in place.

    All three are float32 ``[rows, columns]``. To first order removing weight w changes the loss L
    by w * dL/dw, the connection sensitivity of SNIP (Lee et al., 2019, arXiv 1810.02340). One
    batch's gradient is noise, so it is summed over the steps of the training with a momentum, as in
    Intel's Neural Compressor and its published 2:4 recipe for BERT on SQuAD.

    The gradient is that of a whole optimiser step, before it is clipped and before masks zero it.
    For a pruned weight, w is the value it had and would return with, so its saliency continues to
    say what the loss misses; in Neural Compressor w is then 0, and the saliency fades to nothing.
    Memory: two more numbers per weight until the masks are final. Cost: one pass over the weights
    per step.
    """
    saliency.mul_(SALIENCY_DECAY).add_((weight * gradient).abs_())
