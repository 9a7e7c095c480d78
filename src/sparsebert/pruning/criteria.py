"""What a weight is worth: the criteria by which the methods choose what to prune."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsebert.checkpoint.dtypes import Float32
from sparsebert.patterns import Pattern, mask_from_scores

if TYPE_CHECKING:
    import torch

    from sparsebert.pruning.calibration import Linear, Statistics

SALIENCY_DECAY = 0.9  # of an optimiser step


def wanda(weight: Float32, input_norms: Float32) -> Float32:
    """``|W_ij| * ||X_j||_2``, float32 ``[rows, columns]``; ``input_norms`` is ``[columns]``.

    Weights matter by their size and by how strong their input is (Sun et al., 2023, "A Simple and
    Effective Pruning Approach for Large Language Models", section 3). One pass over the calibration
    texts, no weight is changed: O(rows x columns) beside that pass.
    """
    return np.abs(weight) * input_norms


def prune_by_wanda(layer: Linear, statistics: Statistics, *, pattern: Pattern) -> Linear:
    """The layer with the weights of the lowest scores in each group set to zero."""
    import torch

    # The root mean square over the tokens: the norm but for a factor that all columns share.
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
    batch's gradient is noise, so it is summed over the steps of a training with a momentum, as in
    Intel's Neural Compressor and its published 2:4 recipe for BERT on SQuAD.

    The gradient is that of a whole optimiser step, before it is clipped and before masks zero it.
    For a pruned weight w is the value it had and would return with: its saliency goes on telling
    what the loss misses, where Neural Compressor's fades to nothing because there w is 0. Memory:
    two more numbers a weight until the masks are final. Cost: one pass over the weights a step.
    """
    saliency.mul_(SALIENCY_DECAY).add_((weight * gradient).abs_())
