"""What an evaluation found, and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sparsebert.tasks.table import Task

# Names of `sparsebert.evaluation.metrics` as people write them.
METRIC_TITLES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "matthews": "Matthews",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "exact_match": "exact match",
}


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model on one task.

    ``scores`` maps validation split to metric to percent; ``rows`` how many rows each split had;
    ``seconds`` is the time spent computing, without loading and tokenising; ``engine`` is
    ``sparsebert`` or ``torch``; ``notes`` tell of what a reader should know about the scores.
    """

    model: str
    task: str
    title: str
    engine: str
    scores: dict[str, dict[str, float]]
    rows: dict[str, int]
    seconds: float
    threads: int
    notes: list[str] = field(default_factory=list)

    def row(self) -> str:
        """The task's row of the table, such as ``QQP (accuracy/F1): 90.8/87.6``."""
        return table_row(self.title, self.scores)

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {**asdict(self), "row": self.row()}


def table_row(title: str, scores: Mapping[str, Mapping[str, float]]) -> str:
    """Title, names of the metrics and their percentages over all splits, in order."""
    metrics = list(next(iter(scores.values())))
    names = "/".join(METRIC_TITLES.get(name, name) for name in metrics)
    values = "/".join(f"{value:.1f}" for split in scores.values() for value in split.values())
    if len(scores) == 1 and title == "MNLI-m/mm":  # only one of its two halves was there
        title = f"MNLI ({next(iter(scores))})"
    return f"{title} ({names}): {values}"


def main_score(task: Task, scores: Mapping[str, Mapping[str, float]]) -> float:
    """The task's main metric on its first split, in percent."""
    return next(iter(scores.values()))[task.main_metric]
