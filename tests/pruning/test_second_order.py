"""Second-order pruning and Wanda of one layer, against exhaustive search, numpy and hand counts."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sparsebert.patterns import Pattern, is_whole
from sparsebert.pruning import criteria, obs, second_order
from sparsebert.pruning.calibration import Linear, Statistics


def layer(rows: int, columns: int, seed: int = 0, tokens: int = 200) -> tuple[Any, Any]:
    """A weight ``[rows, columns]`` and correlated inputs ``[tokens, columns]``, float64."""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((columns, columns)) + np.eye(columns)
    return random.standard_normal((rows, columns)), random.standard_normal(
        (tokens, columns)
    ) @ mixing + random.standard_normal(columns)


def moment_of(inputs: Any) -> Any:
    """Their second moment, float64 ``[columns, columns]``."""
    return inputs.T @ inputs / len(inputs)


def as_torch(values: Any) -> Any:
    return torch.tensor(values, dtype=torch.float32)


def loss(weight: Any, inputs: Any, kept: Any) -> float:
    """The least squared change of ``inputs @ weight`` with only the weights ``kept`` (bool)."""
    wanted = inputs @ weight
    found = np.linalg.lstsq(inputs[:, kept], wanted, rcond=None)[0]
    return float(np.square(inputs[:, kept] @ found - wanted).sum())


def group_masks(pattern: Pattern) -> list[Any]:
    return [
        np.isin(np.arange(pattern.m), places)
        for places in combinations(range(pattern.m), pattern.n)
    ]


@pytest.mark.parametrize("text", ["1:2", "1:3", "2:4", "1:4", "4:8"])
def test_a_single_group_is_pruned_as_exhaustive_search_does(text: str) -> None:
    """The others are free to make up for it, so one group's choice is exact."""
    pattern = Pattern.parse(text)
    weight, inputs = layer(9, pattern.m, seed=3)
    _, mask = obs.prune_columns(as_torch(weight), as_torch(moment_of(inputs)), pattern)
    masks = group_masks(pattern)
    for row, chosen in zip(weight, mask.numpy(), strict=True):
        best = min(masks, key=lambda kept: loss(row, inputs, kept))
        assert chosen.tolist() == best.tolist()


def test_the_left_of_a_pair_is_not_taken_for_fixed() -> None:
    """SparseGPT scores the right one as if the left could not make up for it: not here."""
    pattern = Pattern(1, 2)
    weight, inputs = layer(40, 6, seed=1)
    inputs[:, 1] = inputs[:, 0] + 0.3 * inputs[:, 1]  # the first two say much the same
    moment = moment_of(inputs)
    _, mask = obs.prune_columns(as_torch(weight), as_torch(moment), pattern)
    everything = np.ones(6, bool)
    for row, chosen in zip(weight, mask.numpy(), strict=True):
        left, right = everything.copy(), everything.copy()
        left[1] = right[0] = False  # which one of the first pair is kept
        best = left if loss(row, inputs, left) < loss(row, inputs, right) else right
        assert chosen[:2].tolist() == best[:2].tolist()
    factor = np.linalg.cholesky(np.linalg.inv(moment)).T  # what SparseGPT divides by
    cost = np.square(weight[:, :2] / factor.diagonal()[:2])
    assert np.mean((cost[:, 0] > cost[:, 1]) != mask[:, 0].numpy()) > 0.2


@pytest.mark.parametrize(
    ("text", "rows", "columns"), [("1:2", 7, 134), ("2:4", 5, 136), ("1:3", 3, 135), ("4:8", 1, 16)]
)
def test_blocks_of_columns_choose_as_one_inverse_after_another(
    text: str, rows: int, columns: int
) -> None:
    pattern = Pattern.parse(text)
    weight, inputs = layer(rows, columns, seed=2, tokens=3 * columns)
    moment = moment_of(inputs) + 0.1 * np.eye(columns)
    _, mask = obs.prune_columns(as_torch(weight), as_torch(moment), pattern)
    expected = np.ones((rows, columns), bool)
    work = weight.copy()
    for begin in range(0, columns, pattern.m):
        inverse = np.linalg.inv(moment[begin:, begin:])  # over the columns not fixed yet
        for number in range(rows):
            row, costs = work[number, begin:], []
            for kept in group_masks(pattern):
                lost = np.flatnonzero(~kept)
                block = np.linalg.inv(inverse[np.ix_(lost, lost)])
                costs.append((row[lost] @ block @ row[lost], kept))
            kept = min(costs, key=lambda cost: cost[0])[1]
            expected[number, begin : begin + pattern.m] = kept
            # Optimal Brain Surgeon, weight by weight, each over the columns from itself on.
            for place in np.flatnonzero(~kept):
                rest = np.linalg.inv(moment[begin + place :, begin + place :])
                work[number, begin + place :] -= work[number, begin + place] / rest[0, 0] * rest[0]
    assert is_whole(mask.numpy(), pattern)
    assert np.mean(mask.numpy() == expected) > 0.999  # float32 may turn a near tie


def solve_kept(wanted: Any, moment: Any, mask: Any, start: Any = None) -> Any:
    """From zeros, unless there is a start."""
    inverse = torch.linalg.inv(moment.double()).float()
    start = torch.zeros_like(wanted) if start is None else start
    return second_order.solve_kept(start, wanted, moment, inverse, mask)


@pytest.mark.parametrize(
    ("text", "rows", "columns"),
    [("1:2", 1, 24), ("1:2", 7, 24), ("2:4", 5, 24), ("1:4", 3, 24), ("1:2", 30, 200)],
)
def test_kept_weights_lose_no_more_than_the_least_squares_solution(
    text: str, rows: int, columns: int
) -> None:
    pattern = Pattern.parse(text)
    weight, inputs = layer(rows, columns, seed=4, tokens=3 * columns)
    moment = as_torch(moment_of(inputs))
    random = np.random.default_rng(5)
    mask = np.concatenate(
        [
            random.permuted(np.tile(group_masks(pattern)[0], (rows, 1)), axis=1)
            for _ in range(columns // pattern.m)
        ],
        axis=1,
    )
    found = solve_kept(as_torch(weight) @ moment, moment, torch.tensor(mask))
    assert not np.any(found.numpy()[~mask])
    changes = inputs @ (found.double().numpy() - weight).T
    least = sum(loss(row, inputs, kept) for row, kept in zip(weight, mask, strict=True))
    assert np.square(changes).sum() == pytest.approx(least, rel=1e-3)


def test_kept_weights_stay_where_they_are_best() -> None:
    weight, inputs = layer(5, 24, seed=6)
    moment = as_torch(moment_of(inputs))
    mask = torch.arange(24).remainder(2).bool().expand(5, 24)
    wanted = as_torch(weight) @ moment
    best = solve_kept(wanted, moment, mask)
    again = solve_kept(wanted, moment, mask, start=best)
    assert again.numpy() == pytest.approx(best.numpy(), rel=1e-4, abs=1e-4)


def statistics(inputs: Any, targets: Any) -> Statistics:
    """The statistics of inputs ``[tokens, columns]`` and outputs ``[tokens, rows]``, by numpy."""
    x, y = inputs - inputs.mean(0), targets - targets.mean(0)
    return Statistics(
        inputs=as_torch(x.T @ x / len(x)),
        targets=as_torch(y.T @ x / len(x)),
        input_mean=as_torch(inputs.mean(0)),
        target_mean=as_torch(targets.mean(0)),
    )


def linear(weight: Any, bias: Any) -> Linear:
    return Linear(as_torch(weight), as_torch(bias), torch.ones(weight.shape, dtype=torch.bool))


def test_a_layer_is_exact_under_its_mask_and_comes_near_the_best_of_all_masks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(second_order, "_DAMPING", 1e-5)
    pattern = Pattern(1, 2)
    weight, inputs = layer(15, 8, seed=6)
    bias = np.random.default_rng(7).standard_normal(15)
    noise = np.random.default_rng(8).standard_normal((len(inputs), 15))
    targets = inputs @ weight.T + bias + 0.3 * noise  # as where the dense model's inputs differ
    found = second_order.prune_linear(
        linear(weight, bias), statistics(inputs, targets), pattern=pattern
    )
    assert is_whole(found.mask.numpy(), pattern)
    assert not found.weight[~found.mask].any()

    def left(kept: Any, target: Any) -> float:
        """The least squared error of a row with these weights and a bias."""
        design = np.column_stack([inputs[:, kept], np.ones(len(inputs))])
        return float(np.linalg.lstsq(design, target, rcond=None)[1][0])

    chosen = best = magnitude = 0.0
    for number, target in enumerate(targets.T):
        row = found.weight[number].numpy()
        error = float(np.square(inputs @ row + found.bias[number].item() - target).sum())
        assert error <= 1.001 * left(found.mask[number].numpy(), target)
        chosen += error
        best += min(
            left(np.concatenate(masks), target) for masks in product(group_masks(pattern), repeat=4)
        )
        pairs = np.abs(weight[number]).reshape(-1, 2)
        magnitude += left((pairs == pairs.max(1, keepdims=True)).reshape(-1), target)
    assert best <= chosen < 1.1 * best
    assert magnitude > 1.5 * best


@pytest.mark.parametrize(("text", "rows", "columns"), [("1:2", 31, 48), ("2:4", 17, 40)])
def test_settled_masks_lose_less_than_a_walk_from_left_to_right(
    text: str, rows: int, columns: int
) -> None:
    pattern = Pattern.parse(text)
    weight, inputs = layer(rows, columns, seed=10)
    moment = as_torch(moment_of(inputs) + 0.1 * np.eye(columns))
    ideal = as_torch(weight)
    start, walked = obs.prune_columns(ideal, moment, pattern)
    _, settled = second_order.settle_mask(start, ideal @ moment, moment, pattern)
    assert is_whole(settled.numpy(), pattern)

    def lost(mask: Any) -> Any:
        kept = solve_kept(ideal @ moment, moment, mask)
        return second_order.loss(kept, ideal, moment)

    assert lost(settled).sum() < 0.9 * lost(walked).sum()
    assert lost(walked).sum() < second_order.loss(start, ideal, moment).sum()


def test_rows_that_do_not_settle_keep_the_walks_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = Pattern(1, 2)
    weight, inputs = layer(12, 16, seed=11)
    targets = inputs @ weight.T
    settle = second_order.settle_mask

    def flipped(*arguments: Any) -> Any:
        settled, mask = settle(*arguments)
        mask[::2] = ~mask[::2]  # of each pair the other one
        return settled, mask

    expected = second_order.prune_linear(
        linear(weight, np.zeros(12)), statistics(inputs, targets), pattern=pattern
    )
    monkeypatch.setattr(second_order, "settle_mask", flipped)
    found = second_order.prune_linear(
        linear(weight, np.zeros(12)), statistics(inputs, targets), pattern=pattern
    )
    moment = statistics(inputs, targets).inputs
    moment.diagonal().add_(0.01 * moment.diagonal().mean())
    walked = obs.prune_columns(as_torch(weight), moment, pattern)[1]
    assert torch.equal(found.mask[1::2], expected.mask[1::2])
    assert torch.equal(found.mask[::2], walked[::2])


def test_inputs_that_never_change_or_are_always_zero() -> None:
    weight, inputs = layer(5, 8, seed=9)
    inputs[:, 2] = 0
    inputs[:, 5] = 4
    bias = np.zeros(5)
    found = second_order.prune_linear(
        linear(weight, bias), statistics(inputs, inputs @ weight.T), pattern=Pattern(1, 2)
    )
    assert torch.isfinite(found.weight).all()
    assert torch.isfinite(found.bias).all()
    constant = np.ones((50, 4))
    found = second_order.prune_linear(
        linear(weight[:, :4], bias),
        statistics(constant, constant @ weight[:, :4].T),
        pattern=Pattern(1, 2),
    )
    assert found.weight.numpy().sum(1) + found.bias.numpy() == pytest.approx(
        weight[:, :4].sum(1), abs=1e-5
    )  # the bias makes up for all of it


def test_wanda_by_hand() -> None:
    weight = np.array([[1.0, -2.0, 3.0, 0.4], [-4.0, 1.5, 0.1, 0.2]])
    inputs = np.array([[3.0, 0.0, 1.0, 4.0], [0.0, 1.0, 0.0, 4.0], [4.0, 2.0, 0.0, 2.0]])
    # Norms: 5, sqrt(5), 1, 6. Scores: 5, 4.47, 3, 2.4 / 20, 3.35, 0.1, 1.2.
    found = criteria.prune_by_wanda(
        linear(weight, np.ones(2)), statistics(inputs, inputs), pattern=Pattern(1, 2)
    )
    assert found.weight.tolist() == [[1, 0, 3, 0], [-4, 0, 0, np.float32(0.2)]]
    assert found.bias.tolist() == [1, 1]
    norms = np.linalg.norm(inputs, axis=0).astype(np.float32)
    scores = criteria.wanda(weight.astype(np.float32), norms)
    assert scores[0].tolist() == pytest.approx([5, 2 * 5**0.5, 3, 2.4])


def test_rows_that_share_their_inputs_choose_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the best of all masks for each block, and magnitude's; the last block is smaller."""
    monkeypatch.setattr(second_order, "_DAMPING", 1e-5)
    pattern = Pattern(1, 2, 16)
    weight, inputs = layer(27, 8, seed=12)
    targets = inputs @ weight.T
    found = second_order.prune_linear(
        linear(weight, np.zeros(27)), statistics(inputs, targets), pattern=pattern
    )
    assert is_whole(found.mask.numpy(), pattern)
    masks = [np.concatenate(each) for each in product(group_masks(Pattern(1, 2)), repeat=4)]
    x = inputs - inputs.mean(0)
    for block in (slice(0, 16), slice(16, 27)):
        rows, kept = weight[block], found.mask[block][0].numpy()
        losses = [sum(loss(row, x, mask) for row in rows) for mask in masks]
        error = float(np.square(x @ (found.weight[block].numpy() - rows).T).sum())
        assert error == pytest.approx(sum(loss(row, x, kept) for row in rows), rel=0.01)
        assert error < 1.1 * min(losses)
        largest = np.abs(rows).sum(0).reshape(-1, 2)
        magnitude = (largest == largest.max(1, keepdims=True)).reshape(-1)
        assert error <= 1.001 * sum(loss(row, x, magnitude) for row in rows)


def test_a_blocks_group_is_pruned_as_exhaustive_search_does() -> None:
    pattern = Pattern(1, 2, 16)
    weight, inputs = layer(40, 2, seed=13)
    _, mask = obs.prune_columns(as_torch(weight), as_torch(moment_of(inputs)), pattern)
    for block in (slice(0, 16), slice(16, 32), slice(32, 40)):
        best = min(
            group_masks(pattern), key=lambda kept: sum(loss(r, inputs, kept) for r in weight[block])
        )
        assert np.array_equal(mask[block].numpy(), np.tile(best, (len(weight[block]), 1)))


def test_swaps_within_pairs_gain_what_they_promise() -> None:
    """Every swap's gain is exact: the loss of least squares without it and with it."""
    weight, inputs = layer(16, 12, seed=14)
    moment = moment_of(inputs)
    inside = np.arange(6) * 2 + np.random.default_rng(15).integers(0, 2, 6)

    def lost(places: Any) -> float:
        kept = np.isin(np.arange(12), places)
        return sum(loss(row, inputs, kept) for row in weight) / len(inputs)

    won, gains = second_order._gains(
        torch.tensor(inside), torch.tensor(weight @ moment), torch.tensor(moment)
    )
    everything = np.einsum("ri,ij,rj->", weight, moment, weight)
    assert everything - won == pytest.approx(lost(inside), rel=1e-6)
    for number in range(6):
        swapped = inside.copy()
        swapped[number] ^= 1
        assert gains[number].item() == pytest.approx(lost(inside) - lost(swapped), rel=1e-5)


def test_no_single_swap_is_left_that_gains() -> None:
    """From masks at random, blocks of 16 and 11 rows: whole, better, and at an optimum."""
    pattern = Pattern(1, 2, 16)
    weight, inputs = layer(27, 24, seed=16)
    moment = as_torch(moment_of(inputs) + 0.1 * np.eye(24))
    wanted = as_torch(weight) @ moment
    odd = np.random.default_rng(17).random((2, 12)) > 0.5
    start = torch.tensor(np.stack((~odd, odd), -1).reshape(2, 24)[np.arange(27) // 16])
    found = second_order.swap_pairs(start, wanted, moment, pattern)
    assert is_whole(found.numpy(), pattern)

    def lost(mask: Any) -> float:
        kept = solve_kept(wanted, moment, mask)
        return float(second_order.loss(kept, as_torch(weight), moment).sum())

    best = lost(found)
    assert best < lost(start)
    for block in (slice(0, 16), slice(16, 27)):
        for left in range(0, 24, 2):
            swapped = found.clone()
            swapped[block, left : left + 2] = ~swapped[block, left : left + 2]
            assert lost(swapped) > 0.999 * best
