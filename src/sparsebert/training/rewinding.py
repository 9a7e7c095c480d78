"""Learning-rate rewinding: pruning while training must not eat the learning rate's decay.

After pruning, a model recovers best at the learning rates it was trained with, not at the small
ones that a run ends on (Renda et al., 2020, arXiv 2003.02389). Prune Once for All (Zafrir et al.,
2021, arXiv 2111.05754) therefore rewinds a gradual pruning's schedule at every mask update to where
pruning began, and lets it run its course once the masks are final. With a ramp from t0 to t1 of T
steps and an update every k, step t takes the rate of step c(t) of an ordinary schedule (warm-up to
t0, then linearly to zero) of T' = T - (t1 - t0) steps:

    c(t) = t                    before t0
    c(t) = t0 + (t - t0) mod k  from t0 to t1
    c(t) = t - (t1 - t0)        from t1

    rate(c) = c / t0 before t0, (T' - c) / (T' - t0) from there
"""

from __future__ import annotations

from sparsebert.pruning.gradual import Ramp


def rewound_rate(ramp: Ramp, step: int) -> float:
    """The learning rate of the optimiser step after ``step`` steps, as a share of its peak."""
    length = ramp.end - ramp.start
    if step < ramp.start:
        return step / ramp.start
    if step < ramp.end:
        step = ramp.start + (step - ramp.start) % ramp.interval
    else:
        step -= length
    steps = ramp.steps - length
    return max(0.0, (steps - step) / (steps - ramp.start))
