"""Better masks for rows that share their inputs: of a pair the other input, while the loss falls.

A block of rows keeps the inputs K. With G = H_KK^-1, weights w = b_K G and b = W* H, what the block
loses changes exactly as follows if it keeps j, the other of its pair, in place of i:

    |w_i|^2 / G_ii - |b_j - w H_Kj + w_i u_i / G_ii|^2 / (H_jj - H_jK u + u_i^2 / G_ii),  u = G H_Kj

the first term being what it costs to let i go (Optimal Brain Surgeon), the second what j then wins
back; all norms are over the rows of the block. Computed for all pairs at once, since a block of
many rows has one G. The best swaps are made together; where they get in each other's way and the
loss does not fall, half as many. Cost: O(columns^3) a round and block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsebert.patterns import Pattern

if TYPE_CHECKING:
    import torch

_ROUNDS = 100  # at most
_SHARE = 0.2  # of the swaps that gain are tried together
_LEAST = 1e-5  # of what the kept inputs win over zeros: a round that gains less is the last


def swap_pairs(
    mask: torch.Tensor, wanted: torch.Tensor, moment: torch.Tensor, pattern: Pattern
) -> torch.Tensor:
    """A whole mask of ``pattern`` that loses no more than ``mask``; both bool ``[rows, columns]``.

    ``wanted`` is W* H ``[rows, columns]``, ``moment`` is H ``[columns, columns]``.
    """
    found = mask.clone()
    size = pattern.shared_rows
    for begin in range(0, len(mask), size):
        rows = slice(begin, begin + size)
        found[rows] = _swap_in_block(mask[begin], wanted[rows], moment)
    return found


def _swap_in_block(kept: torch.Tensor, wanted: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
    """The mask ``[columns]`` of one block of rows, better than ``kept`` or the same."""
    inside = kept.nonzero()[:, 0]
    won, gains = _gains(inside, wanted, moment)
    for _ in range(_ROUNDS):
        order = gains.argsort(descending=True)
        count = int(_SHARE * int((gains > 0).sum())) + 1
        while count:
            tried = inside.clone()
            tried[order[:count]] ^= 1  # the other of the pair
            more, later = _gains(tried, wanted, moment)
            if more > won + _LEAST * abs(won):
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
    """How much less the block loses than with zeros, and by each swap less again: ``[pairs]``."""
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
