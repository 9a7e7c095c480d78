"""The sparsity schedule against hand-computed values, forced groups against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from sparsebert.errors import PatternError, TrainingError
from sparsebert.patterns import BoolMatrix, Matrix, Pattern, is_whole
from sparsebert.pruning.gradual import SparsitySchedule, forced_count, forced_mask


def test_the_share_is_the_cubic_of_zhu_and_gupta() -> None:
    schedule = SparsitySchedule(start=10, end=30, interval=5, steps=50)
    shares = {step: schedule.share(step) for step in (0, 10, 15, 20, 25, 30, 50)}
    assert shares == {
        0: 0.0,
        10: 0.0,
        15: 0.578125,  # 1 - (3/4)^3
        20: 0.875,  # 1 - (1/2)^3
        25: 0.984375,  # 1 - (1/4)^3
        30: 1.0,
        50: 1.0,
    }


@pytest.mark.parametrize(
    ("schedule", "updates"),
    [
        (SparsitySchedule(10, 30, 5, 50), [15, 20, 25, 30]),
        (SparsitySchedule(0, 11, 4, 20), [4, 8, 11]),  # the last one always, whatever the interval
        (SparsitySchedule(3, 7, 1, 14), [4, 5, 6, 7]),
    ],
)
def test_masks_are_updated_at_intervals_and_at_the_end(
    schedule: SparsitySchedule, updates: list[int]
) -> None:
    assert [step for step in range(schedule.steps + 1) if schedule.updates(step)] == updates


@pytest.mark.parametrize(
    ("steps", "warmup", "schedule"),
    [
        (1000, 60, SparsitySchedule(60, 530, 10, 1000)),
        (100, 6, SparsitySchedule(6, 53, 1, 100)),
        (9, 1, SparsitySchedule(1, 5, 1, 9)),
        (8, 0, SparsitySchedule(0, 4, 1, 8)),
    ],
)
def test_a_run_ramps_over_half_the_steps_after_warm_up(
    steps: int, warmup: int, schedule: SparsitySchedule
) -> None:
    assert SparsitySchedule.of_run(steps, warmup) == schedule


@pytest.mark.parametrize(("steps", "warmup", "least"), [(8, 1, 9), (7, 0, 8), (1, 1, 9)])
def test_a_run_too_short_for_a_ramp_is_refused(steps: int, warmup: int, least: int) -> None:
    message = rf"a run of {steps} steps \({warmup} of them warm-up\) is too short .* takes {least}:"
    with pytest.raises(TrainingError, match=message):
        SparsitySchedule.of_run(steps, warmup)
    SparsitySchedule.of_run(least, warmup)


def test_counts_are_rounded() -> None:
    assert [forced_count(share, 7) for share in (0, 0.07, 0.08, 0.5, 0.92, 0.93, 1)] == [
        0,
        0,
        1,
        4,
        6,
        7,
        7,
    ]


def brute_force(scores: Matrix, pattern: Pattern, count: int) -> BoolMatrix:
    """The definition, group by group in Python."""
    rows, columns = scores.shape
    groups = []
    for row in range(rows):
        for start in range(0, columns, pattern.m):
            places = range(start, start + pattern.m)
            best = sorted(places, key=lambda place: (-scores[row, place], place))
            pruned = best[pattern.n :]
            groups.append((sum(scores[row, place] for place in pruned), row, start, pruned))
    mask = np.ones(scores.shape, bool)
    for _, row, _, pruned in sorted(groups, key=lambda group: group[:3])[:count]:
        mask[row, pruned] = False
    return mask


@pytest.mark.parametrize(
    ("pattern", "shape"),
    [
        ("1:2", (1, 2)),
        ("1:2", (5, 6)),
        ("1:2", (7, 14)),
        ("2:4", (1, 4)),
        ("2:4", (5, 12)),
        ("1:3", (3, 9)),
        ("4:8", (3, 24)),
    ],
)
@pytest.mark.parametrize("tied", [False, True], ids=["distinct", "tied"])
def test_forced_groups_are_those_that_lose_least(
    pattern: str, shape: tuple[int, int], tied: bool
) -> None:
    random = np.random.default_rng(0)
    wanted = Pattern.parse(pattern)
    groups = shape[0] * shape[1] // wanted.m
    scores = random.permutation(shape[0] * shape[1]).reshape(shape).astype(np.float32)
    if tied:
        scores = random.integers(3, size=shape).astype(np.float32)
    for share in (0, 0.1, 0.34, 0.5, 0.875, 0.99, 1):
        count = forced_count(share, groups)
        mask = forced_mask(scores, wanted, share)
        assert np.array_equal(mask, brute_force(scores, wanted, count))
        dense = mask.reshape(-1, wanted.m).all(axis=1)
        assert np.count_nonzero(~dense) == count
    assert is_whole(forced_mask(scores, wanted, 1), wanted)


def test_scores_are_left_as_they_are() -> None:
    scores = np.arange(12, dtype=np.float32).reshape(2, 6)
    before = scores.copy()
    forced_mask(scores, Pattern(1, 2), 0.5)
    assert np.array_equal(scores, before)


def test_a_pattern_that_does_not_divide_is_refused() -> None:
    with pytest.raises(PatternError, match="an input dimension of 6 cannot be cut into groups"):
        forced_mask(np.ones((2, 6), np.float32), Pattern(2, 4), 0.5)
