"""A model's scores as the Hugging Face hub reads them off its card (``model-index``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sparsebert.evaluation.result import METRIC_TITLES
from sparsebert.tasks.table import Kind, Task

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

# Where the hub's name of a metric is not ours.
_HUB_METRICS = {
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
}


def hub_results(
    task: Task,
    scores: Mapping[str, Mapping[str, float]],
    remark: Callable[[str, str], str] = lambda split, metric: "",
) -> list[EvalResult]:
    """One result for each split and metric of ``scores`` (split to metric to percent).

    ``remark(split, metric)`` is added to a metric's name, such as its deviation over the seeds.
    """
    from huggingface_hub import EvalResult

    question = task.kind is Kind.QUESTION
    return [
        EvalResult(
            task_type="question-answering" if question else "text-classification",
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
    ]
