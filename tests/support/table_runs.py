"""Hand-made runs and results for the table: what `finetune` and `evaluate` leave of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparsebert.table import Result, Table, read_runs

Scores = dict[str, dict[str, float]]


def write_document(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def add_model(
    folder: Path,
    task: str,
    scores: Scores,
    *,
    seed: int = 1,
    rows: int = 100,
    evaluated: Scores | None = None,
    **options: Any,
) -> None:
    """What `finetune` leaves of a model, without its weights; ``evaluated``: packed and scored."""
    arguments = {"task": task, "data": task, "seed": seed, "epochs": 3.0, **options}
    steps: list[dict[str, Any]] = [
        {"step": "prune", "from": "org/dense", "arguments": {"pattern": "1:2"}},
        {"step": "finetune", "from": "sparse", "arguments": arguments},
    ]
    if evaluated is not None:
        steps.append({"step": "pack", "from": f"seed-{seed}", "arguments": {"dtype": "int8"}})
        write_document(folder / "evaluation.json", {"task": task, "scores": evaluated})
    write_document(folder / "config.json", {"sparsity": {"lineage": steps}})
    write_document(
        folder / "training.json",
        {"arguments": arguments, "rows": {"train": rows}, "scores": scores},
    )


def pearson(first: float, second: float) -> Scores:
    return {"validation": {"pearson": first, "spearman": second}}


def accuracy(value: float) -> Scores:
    return {"validation": {"accuracy": value}}


def write_runs(root: Path) -> Path:
    """Three tasks and four rows, of one seed or two."""
    for seed, value in ((1, 79.0), (2, 81.0)):
        add_model(root / f"dense/stsb/seed-{seed}", "stsb", pearson(value, 50), seed=seed)
    for seed, value in ((1, 72.0), (2, 72.0)):
        add_model(root / f"oneshot/stsb/seed-{seed}", "stsb", pearson(value, 40), seed=seed)
    for seed, value in ((1, 80.0), (2, 79.0)):
        add_model(root / f"best/stsb/seed-{seed}", "stsb", pearson(value, 50), seed=seed)
        add_model(
            root / f"best-int8/stsb/seed-{seed}",
            "stsb",
            pearson(value, 50),
            seed=seed,
            evaluated=pearson(value - 1, 49),
        )
    add_model(root / "dense/rte", "rte", accuracy(60))
    add_model(root / "best/rte", "rte", accuracy(57), rows=90)
    mnli = {"validation_mismatched": {"accuracy": 72.0}, "validation_matched": {"accuracy": 70.0}}
    add_model(root / "dense/mnli/seed-1", "mnli", mnli)
    return root


def table_of(runs: Path) -> Table:
    return Table(read_runs(runs)[0])


def result(**changes: Any) -> Result:
    fields: dict[str, Any] = {
        "task": "rte",
        "row": "dense",
        "metric": "accuracy",
        "seeds": (60.0,),
        "train_rows": 10,
        "command": "",
        "split": "validation",
        **changes,
    }
    fields = {"run": fields["task"], "seed_numbers": tuple(range(len(fields["seeds"]))), **fields}
    return Result(**fields)
