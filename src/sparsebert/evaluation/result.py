"""What an evaluation found, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from sparsebert.evaluation.metrics import ByClass
from sparsebert.extras import data_frame
from sparsebert.tasks.table import Task

if TYPE_CHECKING:
    import pandas as pd

# Names of `sparsebert.evaluation.metrics` as people write them.
METRIC_TITLES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "matthews": "Matthews",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "exact_match": "exact match",
}

_MOST_CLASSES = 20  # lines on a terminal; as_dict has them all


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model on one task.

    ``scores`` maps validation split to metric to percent; ``rows`` how many rows each split had;
    ``seconds`` is the time spent computing, without loading and tokenising; ``engine`` is
    ``sparsebert`` or ``torch``; ``notes`` tell of what a reader should know about the scores.
    ``by_class`` maps validation split to label to precision, recall, F1 and rows of each class.
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
    by_class: dict[str, ByClass] = field(default_factory=dict)

    def row(self) -> str:
        """The task's row of the table, such as ``QQP (accuracy/F1): 90.8/87.6``."""
        return table_row(self.title, self.scores)

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {**asdict(self), "row": self.row()}

    def to_pandas(self) -> pd.DataFrame:
        """One line for each split and metric; needs [notebook]."""
        about = {"model": self.model, "task": self.task, "engine": self.engine}
        return data_frame(
            {**about, **cell, "rows": self.rows.get(cell["split"])} for cell in cells(self.scores)
        )

    def _repr_markdown_(self) -> str:
        return scores_table(f"{self.title}, {self.model}", self.scores)


def table_row(title: str, scores: Mapping[str, Mapping[str, float]]) -> str:
    """Title, names of the metrics and their percentages over all splits, in order."""
    metrics = list(next(iter(scores.values())))
    names = "/".join(METRIC_TITLES.get(name, name) for name in metrics)
    values = "/".join(f"{value:.1f}" for split in scores.values() for value in split.values())
    if len(scores) == 1 and title == "MNLI-m/mm":  # only one of its two halves was there
        title = f"MNLI ({next(iter(scores))})"
    return f"{title} ({names}): {values}"


def cells(scores: Mapping[str, Mapping[str, float]]) -> Iterator[dict[str, Any]]:
    """Split, metric and score of each, for a data frame."""
    for split, metrics in scores.items():
        for metric, score in metrics.items():
            yield {"split": split, "metric": metric, "score": score}


def scores_table(title: str, scores: Mapping[str, Mapping[str, float]]) -> str:
    """What a notebook shows of scores, in Markdown."""
    lines = [f"**{title}**", "", "| split | metric | percent |", "|---|---|---:|"]
    lines += [
        f"| {cell['split']} | {METRIC_TITLES.get(cell['metric'], cell['metric'])} "
        f"| {cell['score']:.2f} |"
        for cell in cells(scores)
    ]
    return "\n".join(lines)


def by_class_lines(by_class: Mapping[str, ByClass]) -> list[str]:
    """Precision, recall and F1 of each class as lines of text; of many those with the lowest F1."""
    lines = []
    for split, classes in by_class.items():
        names = sorted(classes, key=lambda name: classes[name]["f1"])[:_MOST_CLASSES]
        shown = [name for name in classes if name in names]
        width = max(map(len, [split, *shown]))
        lines.append(f"{split:<{width}}  precision  recall     F1    rows")
        for name in shown:
            each = classes[name]
            lines.append(
                f"{name:<{width}}  {each['precision']:9.1f}  {each['recall']:6.1f}  "
                f"{each['f1']:5.1f}  {each['rows']:6,}"
            )
        if len(shown) < len(classes):
            lines.append(f"(the {len(shown)} lowest of {len(classes)} classes)")
    return lines


def main_score(task: Task, scores: Mapping[str, Mapping[str, float]]) -> float:
    """The task's main metric on its first split, in percent."""
    return next(iter(scores.values()))[task.main_metric]
