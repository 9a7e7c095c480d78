"""The scores of one task over several seeds: their mean and how far they spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparsebert.evaluation.result import METRIC_TITLES, cells
from sparsebert.extras import data_frame

if TYPE_CHECKING:
    import pandas as pd

Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class SeedScores:
    """``seeds`` maps seed to validation split to metric to percent; all have the same metrics."""

    task: str
    title: str
    seeds: dict[int, Scores]

    def mean(self) -> Scores:
        """Mean over the seeds of each split and metric."""
        return self._over_seeds(statistics.fmean)

    def deviation(self) -> dict[str, dict[str, float | None]]:
        """Sample standard deviation (n - 1) over the seeds; None from a single seed."""
        return self._over_seeds(deviation)

    def row(self) -> str:
        """``STS-B (Pearson/Spearman): 86.3 ± 0.2/86.1 ± 0.3, 5 seeds``; empty if unscored."""
        mean, spread = self.mean(), self.deviation()
        if not mean:
            return ""
        names = "/".join(METRIC_TITLES.get(name, name) for name in next(iter(mean.values())))
        values = [
            mean_and_deviation(value, spread[split][metric])
            for split, metrics in mean.items()
            for metric, value in metrics.items()
        ]
        return f"{self.title} ({names}): {'/'.join(values)}, {count_seeds(len(self.seeds))}"

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "task": self.task,
            "title": self.title,
            "seeds": {str(seed): scores for seed, scores in self.seeds.items()},
            "mean": self.mean(),
            "deviation": self.deviation(),
            "row": self.row(),
        }

    def to_pandas(self) -> pd.DataFrame:
        """One line for each seed, split and metric; needs [notebook]."""
        return data_frame(
            {"task": self.task, "seed": seed, **cell}
            for seed, scores in self.seeds.items()
            for cell in cells(scores)
        )

    def _repr_markdown_(self) -> str:
        return self.row() or f"{self.title}: no scores"

    def _over_seeds(self, summary: Callable[[Sequence[float]], Any]) -> dict[str, dict[str, Any]]:
        first: Mapping[str, Mapping[str, float]] = next(iter(self.seeds.values()))
        return {
            split: {
                metric: summary([scores[split][metric] for scores in self.seeds.values()])
                for metric in metrics
            }
            for split, metrics in first.items()
        }


def deviation(scores: Sequence[float]) -> float | None:
    """Sample standard deviation (n - 1); None from a single score, which shows no spread."""
    return statistics.stdev(scores) if len(scores) > 1 else None


def mean_and_deviation(mean: float, spread: float | None) -> str:
    """``86.3 ± 0.2``, or ``86.3`` where a single seed shows no spread."""
    return f"{mean:.1f}" if spread is None else f"{mean:.1f} ± {spread:.1f}"


def about_seeds(scores: Sequence[float]) -> str:
    """What stands behind a metric's name on the hub: ``, mean of 5 seeds, deviation 0.21``."""
    spread = deviation(scores)
    text = f", mean of {count_seeds(len(scores))}"
    return text if spread is None else f"{text}, deviation {spread:.2f}"


def within_spread(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Whether two means differ by at most the larger of the two sample standard deviations.

    A plain rule, and no test of significance. Single seeds show no spread to judge by: False.
    """
    spreads = [spread for spread in (deviation(ours), deviation(theirs)) if spread is not None]
    if not spreads:
        return False
    return abs(statistics.fmean(ours) - statistics.fmean(theirs)) <= max(spreads)


def count_seeds(count: int) -> str:
    """``1 seed``, ``5 seeds``."""
    return f"{count} seed{'' if count == 1 else 's'}"
