"""README.md of a folder of seeds: scores, mean and deviation, for people and for the hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.card import CARD_NAME, model_index
from sparsebert.evaluation.results import (
    METRIC_TITLES,
    SeedScores,
    about_seeds,
    count_seeds,
    hub_results,
)
from sparsebert.tasks.table import TASKS


def write_seeds_card(folder: Path, scores: SeedScores, training: Mapping[str, Any]) -> None:
    """Write the card; ``training`` is the training.json of one of the seeds."""
    count = count_seeds(len(scores.seeds))
    mean, spread = scores.mean(), scores.deviation()
    front = ["library_name: transformers", "tags:", "- sparsebert"]
    if scores.task in TASKS and mean:

        def remark(split: str, metric: str) -> str:
            return about_seeds([found[split][metric] for found in scores.seeds.values()])

        name = f"{folder.resolve().name}, {count}"
        front.append(model_index(name, hub_results(TASKS[scores.task], mean, remark)))
    cells = [(split, metric) for split, metrics in mean.items() for metric in metrics]
    lines = [
        f"# {scores.title}, {count}",
        "",
        f"Models fine-tuned alike on {training['rows']['train']:,} rows, each from its own seed; "
        "scores in percent.",
        "",
        "| seed | "
        + " | ".join(f"{METRIC_TITLES.get(metric, metric)} ({split})" for split, metric in cells)
        + " |",
        "|---|" + "---:|" * len(cells),
    ]
    for seed, found in scores.seeds.items():
        values = " | ".join(f"{found[split][metric]:.2f}" for split, metric in cells)
        lines.append(f"| [{seed}](seed-{seed}) | {values} |")
    lines.append("| mean | " + " | ".join(f"{mean[s][m]:.2f}" for s, m in cells) + " |")
    if len(scores.seeds) > 1:
        values = " | ".join(f"{spread[split][metric]:.2f}" for split, metric in cells)
        lines.append(f"| sample standard deviation | {values} |")
    text = "---\n" + "\n".join(front) + "\n---\n\n" + "\n".join(lines) + "\n"
    (folder / CARD_NAME).write_text(text, encoding="utf-8")
