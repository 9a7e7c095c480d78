"""Second-order pruning: what a weight's loss costs once the others have made up for it.

Optimal Brain Surgeon (Hassibi & Stork 1993) for each row w of a linear layer: with the inputs'
second moment H = X X^T, pruning the weights P and moving the others to make up for it costs
``w_P^T ([H^-1]_PP)^-1 w_P``. SparseGPT (Frantar & Alistarh 2023, algorithm 1) walks over the
columns of all rows at once, with one inverse for all of them.
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

from sparsebert.patterns import Pattern

if TYPE_CHECKING:
    import torch

    from sparsebert.pruning.calibration import Linear, Statistics

_SOLVED_AT_ONCE = 1 << 25  # entries of the systems of equations in memory at once
_DAMPING = 0.01  # share of the mean second moment added to each
_LEAST = 1e-12  # of inputs that are all the same
_BLOCK = 128  # columns updated at once
_MOST_CHOICES = 70  # sets tried for a group: all of 4:8


def prune_linear(layer: Linear, statistics: Statistics, *, pattern: Pattern) -> Linear:
    """The layer pruned, its kept weights and bias fitted to what it should give."""
    import torch

    moment = statistics.inputs.clone()
    damp = _DAMPING * moment.diagonal().mean().clamp(min=_LEAST)
    moment.diagonal().add_(damp)
    factor = torch.linalg.cholesky(moment)
    ideal = torch.cholesky_solve((statistics.targets + damp * layer.weight).T, factor).T
    _, mask = choose_and_update(ideal, moment, pattern)
    weight = solve_kept(ideal, moment, mask)
    bias = statistics.target_mean - weight @ statistics.input_mean
    return layer._replace(weight=weight, bias=bias, mask=mask)


def choose_and_update(
    weight: torch.Tensor, moment: torch.Tensor, pattern: Pattern
) -> tuple[torch.Tensor, torch.Tensor]:
    """SparseGPT: weights ``[rows, columns]`` pruned and updated, and the mask of what was kept.

    ``moment`` is H ``[columns, columns]``, positive definite (damped). The columns are fixed from
    left to right; the weights right of a pruned one make up for it.
    """
    import torch

    factor = _inverse_factor(moment)
    weight = weight.clone()
    mask = torch.ones_like(weight, dtype=torch.bool)
    columns = weight.shape[1]
    step = _BLOCK // pattern.m * pattern.m or pattern.m
    for begin in range(0, columns, step):
        end = min(begin + step, columns)
        errors = torch.zeros(weight.shape[0], end - begin)
        for column in range(begin, end):
            if column % pattern.m == 0:
                group = slice(column, column + pattern.m)
                mask[:, group] = _best_of_group(weight[:, group], factor[group, group], pattern)
            lost = torch.where(mask[:, column], 0.0, weight[:, column])
            error = lost / factor[column, column]
            weight[:, column:end] -= error[:, None] * factor[column, column:end]
            errors[:, column - begin] = error
        weight[:, end:] -= errors @ factor[begin:end, end:]
    return torch.where(mask, weight, 0.0), mask


def _inverse_factor(moment: torch.Tensor) -> torch.Tensor:
    """Upper U with H^-1 = U^T U: ``U[j:, j:]`` is that of the inverse over columns from j on."""
    import torch

    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def _best_of_group(weight: torch.Tensor, factor: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """Which n of a group's m columns each row keeps, bool ``[rows, m]``: the cheapest set goes.

    ``factor`` is the group's square of U, so that U^T U is the inverse over the columns that are
    not fixed yet. Every set is tried; where there are too many, the costs of single weights add up.
    """
    import torch

    inverse = factor.T @ factor
    count = pattern.m - pattern.n
    if comb(pattern.m, count) > _MOST_CHOICES:
        cost = weight.square() / inverse.diagonal()
        keep = cost.argsort(dim=1, descending=True, stable=True)[:, : pattern.n]
        return torch.zeros_like(weight, dtype=torch.bool).scatter_(1, keep, True)
    # From the right: of equal costs the first one wins, and what stays is the leftmost.
    sets = [list(places) for places in combinations(range(pattern.m), count)][::-1]
    costs = []
    for places in sets:
        lost = weight[:, places]
        costs.append((lost @ torch.linalg.inv(inverse[places][:, places]) * lost).sum(dim=1))
    best = torch.stack(costs).argmin(dim=0)
    keeps = torch.ones(len(sets), pattern.m, dtype=torch.bool)
    for number, places in enumerate(sets):
        keeps[number, places] = False
    return keeps[best]


def solve_kept(target: torch.Tensor, moment: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The weights under ``mask`` that come closest to ``target``: H_KK w_K = (H w*)_K for each row.

    ``target`` is w*, the best weights without a mask, ``[rows, columns]``; every row of the mask
    keeps the same number.
    """
    import torch

    rows = len(mask)
    kept = mask.nonzero()[:, 1].view(rows, -1)
    right = (target @ moment).gather(1, kept)
    found = torch.zeros_like(target)
    size = max(1, _SOLVED_AT_ONCE // kept.shape[1] ** 2)
    for start in range(0, rows, size):
        part = slice(start, start + size)
        places = kept[part]
        systems = moment[places[:, :, None], places[:, None, :]]
        factor = torch.linalg.cholesky(systems)
        values = torch.cholesky_solve(right[part].unsqueeze(-1), factor).squeeze(-1)
        found[part] = found[part].scatter(1, places, values)
    return found
