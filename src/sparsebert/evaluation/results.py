"""Evaluation results: of one model, over several seeds, and in the Hugging Face hub's format.

`Evaluation` is one model on one task, `SeedScores` one task over several seeds with mean and
standard deviation, and `hub_results` the ``model-index`` that the hub reads from a model card.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from sparsebert.checkpoint.config import Head
from sparsebert.evaluation.metrics import ByClass
from sparsebert.extras import data_frame
from sparsebert.tasks.table import Task

if TYPE_CHECKING:
    import pandas as pd
    from huggingface_hub import EvalResult

# How the metrics of `sparsebert.evaluation.metrics` are displayed.
METRIC_TITLES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "matthews": "Matthews",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "exact_match": "exact match",
    "ndcg@10": "nDCG@10",
    "mrr@10": "MRR@10",
    "recall@1": "recall@1",
    "recall@10": "recall@10",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "average_precision": "average precision",
    "precision": "precision",
    "recall": "recall",
}

# The hub's metric names, where they differ from ours.
_HUB_METRICS = {
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
}
_MOST_CLASSES = 20  # lines printed per split; as_dict has all classes

Scores = dict[str, dict[str, float]]
"""Split to metric to percent."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model on one task.

    ``scores`` maps each validation split to its metrics in percent; ``by_class`` maps each split to
    precision, recall, F1 and number of examples of each label. ``rows`` is the number of examples
    in each split. ``seconds`` is the time spent computing, without loading, and without tokenising
    where logits are scored. ``engine`` is "sparsebert" or "torch". ``notes`` say what a reader
    should know about the scores.
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
        """The task's row of the results table, such as ``QQP (accuracy/F1): 90.8/87.6``."""
        return table_row(self.title, self.scores)

    def as_dict(self) -> dict[str, Any]:
        """All fields and the `row` as a dict, ready for JSON."""
        return {**asdict(self), "row": self.row()}

    def to_pandas(self) -> pd.DataFrame:
        """One row per split and metric; needs [notebook]."""
        about = {"model": self.model, "task": self.task, "engine": self.engine}
        return data_frame(
            {**about, **cell, "rows": self.rows.get(cell["split"])} for cell in cells(self.scores)
        )

    def _repr_markdown_(self) -> str:
        return scores_table(f"{self.title}, {self.model}", self.scores)


def table_row(title: str, scores: Mapping[str, Mapping[str, float]]) -> str:
    """Title, metric names and percentages over all splits, in order."""
    metrics = list(next(iter(scores.values())))
    names = "/".join(METRIC_TITLES.get(name, name) for name in metrics)
    values = "/".join(
        shown_score(name, value) for split in scores.values() for name, value in split.items()
    )
    if len(scores) == 1 and title == "MNLI-m/mm":  # only one of its two splits was scored
        title = f"MNLI ({next(iter(scores))})"
    return f"{title} ({names}): {values}"


def shown_score(metric: str, value: float) -> str:
    """A percentage with one decimal; a user's own metric with three significant digits."""
    return f"{value:.1f}" if metric in METRIC_TITLES else f"{value:.3g}"


def cells(scores: Mapping[str, Mapping[str, float]]) -> Iterator[dict[str, Any]]:
    """One ``{split, metric, score}`` for each score, for a data frame."""
    for split, metrics in scores.items():
        for metric, score in metrics.items():
            yield {"split": split, "metric": metric, "score": score}


def scores_table(title: str, scores: Mapping[str, Mapping[str, float]]) -> str:
    """Scores as a Markdown table, for notebooks."""
    lines = [f"**{title}**", "", "| split | metric | percent |", "|---|---|---:|"]
    lines += [
        f"| {cell['split']} | {METRIC_TITLES.get(cell['metric'], cell['metric'])} "
        f"| {cell['score']:.2f} |"
        for cell in cells(scores)
    ]
    return "\n".join(lines)


def by_class_lines(by_class: Mapping[str, ByClass]) -> list[str]:
    """The scores of each class as lines of text; if there are many, those with the lowest F1."""
    lines = []
    for split, classes in by_class.items():
        names = sorted(classes, key=lambda name: classes[name]["f1"])[:_MOST_CLASSES]
        shown = [name for name in classes if name in names]
        width = max(map(len, [split, *shown]))
        metrics = [name for name in next(iter(classes.values())) if name != "rows"]
        titles = {name: f"{METRIC_TITLES.get(name, name):>5}" for name in metrics}
        lines.append("  ".join([f"{split:<{width}}", *titles.values(), "  rows"]))
        for name in shown:
            each = classes[name]
            scores = [f"{each[metric]:{len(title)}.1f}" for metric, title in titles.items()]
            lines.append("  ".join([f"{name:<{width}}", *scores, f"{each['rows']:6,}"]))
        if len(shown) < len(classes):
            lines.append(f"(the {len(shown)} lowest of {len(classes)} classes)")
    return lines


def main_score(task: Task, scores: Mapping[str, Mapping[str, float]]) -> float:
    """The task's main metric on its first split, in percent."""
    return next(iter(scores.values()))[task.main_metric]


@dataclass(frozen=True)
class SeedScores:
    """The scores of one task over several seeds.

    ``seeds`` maps each seed to its scores (validation split to metric to percent); all seeds have
    the same metrics.
    """

    task: str
    title: str
    seeds: dict[int, Scores]

    def mean(self) -> Scores:
        """Mean over the seeds, for each split and metric."""
        return self._over_seeds(statistics.fmean)

    def deviation(self) -> dict[str, dict[str, float | None]]:
        """Sample standard deviation (n - 1) over the seeds; None if there is only one."""
        return self._over_seeds(deviation)

    def row(self) -> str:
        """``STS-B (Pearson/Spearman): 86.3 ± 0.2/86.1 ± 0.3, 5 seeds``; empty without scores."""
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
        """All fields, mean, deviation and `row` as a dict, ready for JSON."""
        return {
            "task": self.task,
            "title": self.title,
            "seeds": {str(seed): scores for seed, scores in self.seeds.items()},
            "mean": self.mean(),
            "deviation": self.deviation(),
            "row": self.row(),
        }

    def to_pandas(self) -> pd.DataFrame:
        """One row per seed, split and metric; needs [notebook]."""
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
    """Sample standard deviation (n - 1); None for a single score."""
    return statistics.stdev(scores) if len(scores) > 1 else None


def mean_and_deviation(mean: float, spread: float | None) -> str:
    """``86.3 ± 0.2``, or ``86.3`` without a standard deviation (a single seed)."""
    return f"{mean:.1f}" if spread is None else f"{mean:.1f} ± {spread:.1f}"


def about_seeds(scores: Sequence[float]) -> str:
    """The suffix of a metric's name on the hub: ``, mean of 5 seeds, deviation 0.21``."""
    spread = deviation(scores)
    text = f", mean of {count_seeds(len(scores))}"
    return text if spread is None else f"{text}, deviation {spread:.2f}"


def within_spread(difference: float, *models: Sequence[float]) -> bool:
    """Whether a difference of means is at most the largest of the models' standard deviations.

    Each of ``models`` has one score per seed. This is a rule of thumb, not a significance test.
    False if all have a single seed.
    """
    spreads = [spread for seeds in models if (spread := deviation(seeds)) is not None]
    return bool(spreads) and abs(difference) <= max(spreads)


def count_seeds(count: int) -> str:
    """``1 seed``, ``5 seeds``."""
    return f"{count} seed{'' if count == 1 else 's'}"


def hub_results(
    task: Task,
    scores: Mapping[str, Mapping[str, float]],
    remark: Callable[[str, str], str] = lambda split, metric: "",
) -> list[EvalResult]:
    """The ``model-index`` entries: one for each split and metric of ``scores``.

    ``remark(split, metric)`` is appended to a metric's name, such as its deviation over the seeds.
    """
    from huggingface_hub import EvalResult

    kinds = {Head.QUESTION: "question-answering", Head.TOKEN: "token-classification"}
    return [
        EvalResult(
            task_type=kinds.get(task.head, "text-classification"),
            dataset_type=task.hub_id or task.name,
            dataset_name=f"GLUE {task.title}" if task.hub_config else task.title,
            dataset_config=task.hub_config,
            dataset_split=split,
            metric_type=_HUB_METRICS.get(metric, metric),
            metric_value=round(value, 2),
            metric_name=f"{METRIC_TITLES.get(metric, metric)}, percent{remark(split, metric)}",
        )
        for split, metrics in scores.items()
        for metric, value in metrics.items()
        if metric in task.metrics  # a user's own metric has no name on the hub
    ]
