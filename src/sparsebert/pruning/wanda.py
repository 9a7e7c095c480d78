"""Wanda: weights matter by their size and by how strong their input is.

Sun et al. (2023), "A Simple and Effective Pruning Approach for Large Language Models", section 3.
One pass over the calibration texts, no weight is changed: O(rows x columns) beside that pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsebert.checkpoint.dtypes import Float32
from sparsebert.patterns import Pattern, mask_from_scores

if TYPE_CHECKING:
    from sparsebert.pruning.calibration import Linear, Statistics


def scores(weight: Float32, input_norms: Float32) -> Float32:
    """``|W_ij| * ||X_j||_2``, float32 ``[rows, columns]``; ``input_norms`` is ``[columns]``."""
    return np.abs(weight) * input_norms


def prune_linear(layer: Linear, statistics: Statistics, *, pattern: Pattern) -> Linear:
    """The layer with the weights of the lowest scores in each group set to zero."""
    import torch

    # The root mean square over the tokens: the norm but for a factor that all columns share.
    square = statistics.inputs.diagonal() + statistics.input_mean.square()
    found = scores(layer.weight.numpy(), square.clamp(min=0).sqrt().numpy())
    mask = torch.from_numpy(mask_from_scores(found, pattern))
    return layer._replace(weight=torch.where(mask, layer.weight, 0.0), mask=mask)
