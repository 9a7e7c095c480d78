"""How training rows are put into batches, and how batches shrink."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

from sparsebert.tasks.tokens import TokenRows
from sparsebert.torch_models import padded_batch
from sparsebert.training.batches import BatchPlan, LengthBuckets, is_out_of_memory

LENGTHS = np.random.default_rng(0).integers(3, 120, size=1037)


def test_every_row_comes_once_in_every_epoch() -> None:
    buckets = LengthBuckets(LENGTHS, 16, seed=1)
    assert len(buckets) == 1037
    for epoch in range(3):
        buckets.set_epoch(epoch)
        assert sorted(buckets) == list(range(1037))


def test_rows_of_a_step_are_of_like_length() -> None:
    order = LengthBuckets(LENGTHS, 16, seed=1).order()

    def padded(rows: np.ndarray) -> int:
        steps = [rows[start : start + 16] for start in range(0, len(rows), 16)]
        return sum(len(step) * int(LENGTHS[step].max()) for step in steps)

    tokens = int(LENGTHS.sum())
    shuffled = np.random.default_rng(1).permutation(len(LENGTHS))
    assert padded(order) < 1.06 * tokens
    assert padded(shuffled) > 1.6 * tokens


def test_the_longest_row_comes_in_the_first_step_and_the_short_step_last() -> None:
    for seed in range(5):
        order = LengthBuckets(LENGTHS[:1000], 64, seed).order()
        assert LENGTHS[order[:64]].max() == LENGTHS[order[:960]].max()


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first, second = (LengthBuckets(LENGTHS, 16, seed=1) for _ in range(2))
    np.random.default_rng(5).random(100)
    second.set_epoch(4)
    second.order()
    second.set_epoch(0)
    assert np.array_equal(first.order(), second.order())
    second.set_epoch(1)
    assert not np.array_equal(first.order(), second.order())
    assert not np.array_equal(first.order(), LengthBuckets(LENGTHS, 16, seed=2).order())


def test_fewer_rows_than_a_step() -> None:
    assert sorted(LengthBuckets(LENGTHS[:5], 16, seed=1)) == list(range(5))
    assert sorted(LengthBuckets(LENGTHS[:1], 16, seed=1)) == [0]


def test_steps_are_not_always_long_to_short() -> None:
    order = LengthBuckets(LENGTHS, 16, seed=1).order()
    means = LENGTHS[order[:1024]].reshape(-1, 16).mean(axis=1)
    falls = np.diff(means) < 0
    assert 0.3 < falls.mean() < 0.7


@pytest.mark.parametrize(
    ("plan", "smaller"),
    [
        (BatchPlan(32, 1), BatchPlan(16, 2)),
        (BatchPlan(16, 4), BatchPlan(8, 8)),
        (BatchPlan(2, 3), BatchPlan(1, 6)),
        (BatchPlan(5, 1), BatchPlan(1, 5)),
        (BatchPlan(9, 1), BatchPlan(3, 3)),
        (BatchPlan(7, 4), BatchPlan(2, 14)),
        (BatchPlan(1, 8), None),
    ],
)
def test_a_smaller_batch_keeps_the_rows_of_a_step(
    plan: BatchPlan, smaller: BatchPlan | None
) -> None:
    assert plan.halved() == smaller
    if smaller is not None:
        assert smaller.examples_per_step == plan.examples_per_step


def test_what_counts_as_lack_of_memory() -> None:
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("index out of range"))
    assert not is_out_of_memory(KeyboardInterrupt())


def test_batches_are_padded_to_their_longest_row() -> None:
    rows = TokenRows.of([[5, 6], [7], [8, 9, 10, 11]], [[0, 1], [0], [0, 0, 1, 1]])
    batch = {name: values.tolist() for name, values in padded_batch(rows, [1, 0]).items()}
    assert batch == {
        "input_ids": [[7, 0], [5, 6]],
        "token_type_ids": [[0, 0], [0, 1]],
        "attention_mask": [[1, 0], [1, 1]],
    }
