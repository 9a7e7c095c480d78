"""SNIP with momentum: a weight matters as much as the loss would change without it.

To first order removing weight w changes the loss L by w * dL/dw, the connection sensitivity of SNIP
(Lee et al., 2019, arXiv 1810.02340). One batch's gradient is noise, so it is summed over the steps
of a training with a momentum, as in Intel's Neural Compressor and its published 2:4 recipe for BERT
on SQuAD:

    s <- 0.9 s + |w * dL/dw|

The gradient is that of a whole optimiser step, before it is clipped and before masks zero it. For a
pruned weight w is the value it had and would return with: its saliency goes on telling what the
loss misses, where Neural Compressor's fades to nothing because there w is 0. Pruned along the ramp
of `gradual`. Memory: two more numbers a weight until the ramp ends. Cost: one pass over the weights
a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BETA = 0.9


def accumulate(saliency: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor) -> None:
    """s <- 0.9 s + |w * dL/dw| in place; all three are float32 ``[rows, columns]``."""
    saliency.mul_(BETA).add_((weight * gradient).abs_())
