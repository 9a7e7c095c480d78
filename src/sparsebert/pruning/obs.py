"""Optimal Brain Surgeon for N:M groups: what pruning a weight costs once the others made up for it.

For a row w of a linear layer whose inputs have the second moment H = X X^T, pruning the weights P
and updating all others to make up for it costs ``w_P^T ([H^-1]_PP)^-1 w_P`` (Hassibi & Stork 1993).
SparseGPT (Frantar & Alistarh 2023, algorithm 1) walks over the columns of all rows at once, with
one inverse over the columns that are not fixed yet. Its score for a weight treats the earlier ones
of the group as fixed; here, the cost of each set of weights that a group could lose is exact.
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

from sparsebert.patterns import Pattern, spread_over_rows, sum_over_blocks

if TYPE_CHECKING:
    import torch

_BLOCK = 128  # columns updated at once
_MOST_CHOICES = 70  # sets tried per group: all of 4:8


def prune_columns(
    weight: torch.Tensor, moment: torch.Tensor, pattern: Pattern
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pruned and updated weights, float32 ``[rows, columns]``, and the mask of the kept ones.

    ``moment`` is H ``[columns, columns]``, positive definite (damped). Groups are pruned from left
    to right; the weights to the right of a pruned one make up for it before it is their own group's
    turn. Cost: O(columns^3) for the inverse, O(rows x columns^2) for the walk.
    """
    import torch

    factor = _inverse_factor(moment)
    weight = weight.clone()
    mask = torch.ones_like(weight, dtype=torch.bool)
    columns = weight.shape[1]
    step = _BLOCK // pattern.m * pattern.m
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
    """Upper U with H^-1 = U^T U: ``U[j:, j:]`` is the factor for the columns from j on alone.

    In float64, because it inverts, and the moments of a layer's inputs differ by several powers of
    ten.
    """
    import torch

    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment.double()))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()


def _best_of_group(weight: torch.Tensor, factor: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """Which n of a group's m columns each row keeps, bool ``[rows, m]``; the cheapest set goes.

    Rows that share their inputs lose the set that is cheapest for all of them together.
    ``factor`` is the group's diagonal block of U, so that U^T U is the inverse over the columns
    that are not fixed yet. Every set is tried; if there are too many, the costs of single weights
    are added instead.
    """
    import torch

    inverse = factor.T @ factor
    count = pattern.m - pattern.n
    if comb(pattern.m, count) > _MOST_CHOICES:
        cost = weight.square() / inverse.diagonal()  # rows cannot share such a pattern
        keep = cost.argsort(dim=1, descending=True, stable=True)[:, : pattern.n]
        return torch.zeros_like(weight, dtype=torch.bool).scatter_(1, keep, True)
    # From the right: the first of equal costs wins, so that the leftmost weights stay.
    sets = [list(columns) for columns in combinations(range(pattern.m), count)][::-1]
    costs = []
    for columns in sets:
        lost = weight[:, columns]
        costs.append((lost @ torch.linalg.inv(inverse[columns][:, columns]) * lost).sum(dim=1))
    total = sum_over_blocks(torch.stack(costs, dim=1).numpy(), pattern)
    best = spread_over_rows(total.argmin(axis=1), pattern, len(weight))
    keeps = torch.ones(len(sets), pattern.m, dtype=torch.bool)
    for number, columns in enumerate(sets):
        keeps[number, columns] = False
    return keeps[torch.from_numpy(best)]
