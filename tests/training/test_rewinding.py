"""The learning rate of a run that prunes: rewound at each update, whole once the masks are."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from sparsebert.pruning.gradual import SparsitySchedule
from sparsebert.training.gradual_pruning import rewound_rate


def test_the_rate_by_hand() -> None:
    schedule = SparsitySchedule(
        start=2, end=9, interval=3, steps=13
    )  # T' = 6, so it falls by a quarter a step
    assert [rewound_rate(schedule, step) for step in range(14)] == [
        *(0, 0.5),
        *(1, 0.75, 0.5),
        *(1, 0.75, 0.5),
        1,
        *(1, 0.75, 0.5, 0.25),
        0,
    ]


def test_without_warm_up_it_starts_at_the_peak() -> None:
    assert rewound_rate(SparsitySchedule(start=0, end=4, interval=1, steps=8), 0) == 1


def test_after_the_ramp_it_is_the_ordinary_schedule_from_its_peak() -> None:
    import torch

    schedule = SparsitySchedule.of_run(200, 12)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    ordinary = transformers.get_linear_schedule_with_warmup(
        optimizer, 12, schedule.steps - (schedule.end - schedule.start)
    )
    rates = []
    for _ in range(schedule.steps - (schedule.end - schedule.start) + 1):
        rates.append(ordinary.get_last_lr()[0])
        optimizer.step()
        ordinary.step()
    length = schedule.end - schedule.start
    before = [rewound_rate(schedule, step) for step in range(12)]
    after = [rewound_rate(schedule, step) for step in range(schedule.end, schedule.steps + 1)]
    assert before == pytest.approx(rates[:12])
    assert after == pytest.approx(rates[12:])
    assert len(after) == schedule.steps - length - 12 + 1
