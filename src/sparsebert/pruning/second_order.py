"""Second-order pruning: keep what the outputs need, and let the kept weights make up for the rest.

For a linear layer with targets Y (what the dense model outputs at this point, see
`sparsebert.pruning.calibration`) and inputs X, the best weights without a mask are
``W* = (Y X^T + d W) (X X^T + d)^-1``, damped by d towards the dense ones. With any other weights,
the layer loses ``tr (W - W*) H (W - W*)^T`` more, where H = X X^T + d, and N:M pruning looks for
the smallest loss:

1. a start: Optimal Brain Surgeon, group by group (`obs`, SparseGPT's algorithm)
2. better masks: alternating projections (ADMM) between 'close to W*' and 'N:M', which let groups
   settle together, while 1 fixes them one by one. Preconditioned by H's diagonal as in Boža
   (2024, "Fast and Effective Weight Update for Pruned Large Language Models"), with a penalty that
   grows until the masks no longer change, as in ALPS (Meng et al. 2024).
3. the kept weights of each row: the least-squares solution of ``H_KK w_K = (W* H)_K``, by conjugate
   gradients on all rows at once, which need few steps from the result of 2

Rows that share their inputs (see `sparsebert.patterns`) choose together in 1 and 2, by the sum of
what they lose. They have so few masks that a last step is worthwhile: swaps within pairs that
reduce the loss (`swap_pairs`).

Means are removed from X and Y: they belong to the bias, which is fitted with the weights (if the
layer has one).

Memory: a few matrices ``[columns, columns]`` and ``[rows, columns]``.
Cost: O(columns^3), and O(rows x columns^2) for each projection of 2 and each step of 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsebert.patterns import Pattern, mask_from_scores, spread_over_rows, sum_over_blocks
from sparsebert.pruning.calibration import Linear
from sparsebert.pruning.obs import prune_columns

if TYPE_CHECKING:
    import torch

    from sparsebert.pruning.calibration import Statistics


_DAMPING = 0.01  # share of the mean second moment added to each
_LEAST = 1e-12  # instead of the mean, for inputs that are all the same
_PROJECTIONS = 60
_PENALTY = (0.1, 2.0)  # from, to; H is scaled to a diagonal of ones
_EXCESS = 1e-6  # share of the loss under the mask by which the kept weights may miss the least one
_MOST_STEPS = 200
_ROUNDING = 1e-7  # of sums in float32
_SMALLEST = 1e-30


def prune_linear(layer: Linear, statistics: Statistics, *, pattern: Pattern) -> Linear:
    """The pruned layer, its kept weights and bias fitted to what it should output."""
    import torch

    moment = statistics.inputs.clone()
    damp = _DAMPING * moment.diagonal().mean().clamp(min=_LEAST)
    moment.diagonal().add_(damp)
    wanted = statistics.targets + damp * layer.weight
    # In float64, because it inverts, and the moments of a layer's inputs differ by powers of ten.
    factor = torch.linalg.cholesky(moment.double())
    ideal = torch.cholesky_solve(wanted.double().T, factor).T.float()
    inverse = torch.cholesky_inverse(factor).float()

    start, start_mask = prune_columns(ideal, moment, pattern)
    settled, mask = settle_mask(start, wanted, moment, pattern)
    if pattern.shared_rows > 1:
        mask = swap_pairs(mask, wanted, moment, pattern)
    weight = solve_kept(settled, wanted, moment, inverse, mask)
    gained = loss(start, ideal, moment) - loss(weight, ideal, moment)
    worse = _of_blocks(gained, pattern) < 0
    if worse.any():  # by whole blocks: projections mostly help, but they need not
        mask[worse] = start_mask[worse]
        weight[worse] = solve_kept(start[worse], wanted[worse], moment, inverse, mask[worse])
    bias = None
    if layer.bias is not None:
        bias = statistics.target_mean - weight @ statistics.input_mean
    return Linear(weight, bias, mask)


def loss(weight: torch.Tensor, ideal: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
    """What each row loses compared with its ideal weights, (w - w*) H (w - w*)^T: ``[rows]``."""
    change = weight - ideal
    return ((change @ moment) * change).sum(dim=1)


def settle_mask(
    start: torch.Tensor, wanted: torch.Tensor, moment: torch.Tensor, pattern: Pattern
) -> tuple[torch.Tensor, torch.Tensor]:
    """Alternating projections from the pruned weights ``start``: where they settle, and its mask.

    Scaled ADMM for ``min loss(V) with V = Z, Z of the pattern``: V becomes ``(W* H + r (Z - U))
    (H + r)^-1``, Z is V + U pruned by magnitude, and U adds up the difference of V and Z. r grows
    by a factor each time. All columns are scaled by the root of H's diagonal, so that magnitude
    says what a weight contributes.
    """
    import torch

    scale = moment.diagonal().sqrt()
    # Eigenvectors, because H + r has the same ones for every r.
    values, vectors = torch.linalg.eigh(moment / scale.outer(scale))
    goal = wanted / scale
    pruned = start * scale
    apart = torch.zeros_like(pruned)
    mask = pruned != 0
    penalty, last = _PENALTY
    growth = (last / penalty) ** (1 / _PROJECTIONS)
    for _ in range(_PROJECTIONS):
        close = (goal + penalty * (pruned - apart)) @ vectors
        close = (close / (values + penalty)) @ vectors.T + apart
        mask = torch.from_numpy(mask_from_scores(close.square().numpy(), pattern))
        pruned = torch.where(mask, close, 0.0)
        apart = (close - pruned) / growth  # U is in units of 1 / r
        penalty *= growth
    return pruned / scale, mask


def solve_kept(
    start: torch.Tensor,
    wanted: torch.Tensor,
    moment: torch.Tensor,
    inverse: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """The best weights under ``mask``, ``[rows, columns]``: H_KK w_K = b_K for each row b.

    ``wanted`` is Y X^T ``[rows, columns]`` for the outputs Y to approximate (W H for those of
    weights W), ``inverse`` is H^-1 ``[columns, columns]``. By conjugate gradients (Hestenes &
    Stiefel 1952) from ``start``, with each step on all rows, preconditioned by (H^-1)_KK. A row
    with the residual r loses r (H_KK)^-1 r^T more than the minimum, and by the Schur complement
    r (H^-1)_KK r^T is at least that: the iteration stops once the sum of this bound is below a
    share of what all rows lose.
    """
    kept = mask.to(wanted.dtype)
    least = (wanted @ inverse).mul_(wanted).sum()  # what W* gains over zeros
    found = start * kept
    residual = (wanted - found @ moment) * kept
    direction = step = (residual @ inverse) * kept
    excess = (residual * step).sum(dim=1, keepdim=True)
    for _ in range(_MOST_STEPS):
        lost = least - (found * (wanted + residual)).sum()
        if excess.sum() <= _EXCESS * lost + _ROUNDING * least:
            break
        image = (direction @ moment) * kept
        length = excess / (direction * image).sum(dim=1, keepdim=True).clamp(min=_SMALLEST)
        found += length * direction
        residual -= length * image
        step = (residual @ inverse) * kept
        before, excess = excess, (residual * step).sum(dim=1, keepdim=True)
        direction = step + excess / before.clamp(min=_SMALLEST) * direction
    return found


def _of_blocks(losses: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """For each row, the sum over the rows that share its inputs: ``[rows]``."""
    import torch

    rows = len(losses)
    sums = sum_over_blocks(losses[:, None].numpy(), pattern)
    return torch.from_numpy(spread_over_rows(sums, pattern, rows))[:, 0]


_SWAP_ROUNDS = 100  # at most
_SWAP_SHARE = 0.2  # of the swaps that gain, which are tried together
_LEAST_GAIN = 1e-5  # of what the kept inputs gain over zeros; with less, the rounds end


def swap_pairs(
    mask: torch.Tensor, wanted: torch.Tensor, moment: torch.Tensor, pattern: Pattern
) -> torch.Tensor:
    """A whole mask of ``pattern`` that loses no more than ``mask``; both bool ``[rows, columns]``.

    ``wanted`` is W* H ``[rows, columns]``, ``moment`` is H ``[columns, columns]``. As long as the
    loss falls, pairs keep their other input instead. A block of rows keeps the inputs K. With
    G = H_KK^-1, weights w = b_K G and b = W* H, the loss of the block changes by exactly this if it
    keeps j, the other input of the pair, in place of i:

        |w_i|^2 / G_ii - |b_j - w H_Kj + w_i u_i / G_ii|^2 / (H_jj - H_jK u + u_i^2 / G_ii),
        u = G H_Kj

    The first term is what it costs to prune i (Optimal Brain Surgeon), the second is what j then
    wins back; all norms are over the rows of the block. This is computed for all pairs at once,
    because the rows of a block have the same G. The best swaps are made together; if they interfere
    so that the loss does not fall, half as many are made. Cost: O(columns^3) per round and block.
    """
    found = mask.clone()
    size = pattern.shared_rows
    for begin in range(0, len(mask), size):
        rows = slice(begin, begin + size)
        found[rows] = _swap_in_block(mask[begin], wanted[rows], moment)
    return found


def _swap_in_block(kept: torch.Tensor, wanted: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
    """The mask ``[columns]`` of one block of rows, better than ``kept`` or equal to it."""
    inside = kept.nonzero()[:, 0]
    won, gains = _gains(inside, wanted, moment)
    for _ in range(_SWAP_ROUNDS):
        order = gains.argsort(descending=True)
        count = int(_SWAP_SHARE * int((gains > 0).sum())) + 1
        while count:
            tried = inside.clone()
            tried[order[:count]] ^= 1  # the other of the pair
            more, later = _gains(tried, wanted, moment)
            if more > won + _LEAST_GAIN * abs(won):
                break
            count //= 2
        else:
            break
        inside, won, gains = tried, more, later
    mask = kept.new_zeros(kept.shape)
    mask[inside] = True
    return mask


def _gains(
    inside: torch.Tensor, wanted: torch.Tensor, moment: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """How much less the block loses than with zeros, and how much each swap gains: ``[pairs]``."""
    import torch

    others = inside ^ 1
    square = moment[inside][:, inside].double()
    inverse = torch.linalg.inv(square)
    right = wanted[:, inside].double()
    weight = right @ inverse
    across = moment[inside][:, others].double()
    solved = inverse @ across
    u, own = solved.diagonal(), inverse.diagonal()
    left = moment.diagonal()[others].double() - (across * solved).sum(dim=0) + u.square() / own
    rest = wanted[:, others].double() - weight @ across + weight * (u / own)
    gains = rest.square().sum(dim=0) / left - weight.square().sum(dim=0) / own
    return float((weight * right).sum()), gains
