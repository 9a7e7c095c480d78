"""Read the scores in ``RUNS/ROW/TASK``, which are folders of seeds or single model folders.

Weights are not needed: everything is in config.json (how the folder was made), training.json and
evaluation.json. For a model that was packed or pruned after training, only evaluation.json counts,
because the scores in training.json are those of the model it was made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.model_files import EVALUATION_NAME, TRAINING_NAME
from sparsebert.checkpoint.seeds import seed_folders
from sparsebert.checkpoint.sparsity import trained_last
from sparsebert.errors import CheckpointError, DataError
from sparsebert.table.commands import command
from sparsebert.table.results import Result, score_value


@dataclass(frozen=True)
class _Scored:
    seed: int
    task: str
    scores: dict[tuple[str, str], float]  # split and metric to percent
    train_rows: int | None
    lineage: list[dict[str, Any]]
    evaluated: bool  # scored by `evaluate`, not at the end of `finetune`


def read_runs(folder: str | Path) -> tuple[list[Result], list[str]]:
    """All results below ``RUNS``, and notes on seeds that have no scores yet.

    Raises DataError if there are no scores at all, or if the seeds of one result do not belong
    together.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{folder} is not a folder of runs (RUNS/ROW/TASK).")
    results: list[Result] = []
    notes: list[str] = []
    for row in _folders(root):
        for run in _folders(row):
            models = seed_folders(run) or {1: run}
            found = {seed: _read(model) for seed, model in models.items()}
            scored = {seed: each for seed, each in found.items() if each is not None}
            if scored:
                names = [f"seed {seed}" for seed, each in found.items() if each is None]
                if names:
                    notes.append(f"{row.name}, {run.name}: no scores yet for {', '.join(names)}.")
                results += _results(row.name, run, list(scored.values()))
    if not results:
        raise DataError(
            f"{folder} holds no scores: it should hold a folder for each row (dense, oneshot, "
            "best, best-int8), and in it one for each task, made by `finetune` or scored by "
            "`evaluate --save`."
        )
    return results, notes


def _folders(parent: Path) -> list[Path]:
    return sorted(
        path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _read(model: Path) -> _Scored | None:
    """The scores in one model folder; None if it has not been scored."""
    try:
        if not (model / CONFIG_NAME).is_file():
            return None
        lineage = (read_object(model / CONFIG_NAME).get("sparsity") or {}).get("lineage") or []
        for step in lineage:
            if not isinstance(step, dict) or not isinstance(step.get("arguments") or {}, dict):
                raise TypeError("a step of the lineage, or its arguments, is not an object")
        files = [model / name for name in (TRAINING_NAME, EVALUATION_NAME)]
        training, evaluation = (read_object(path) if path.is_file() else {} for path in files)
        arguments = training.get("arguments", {})
        if not evaluation and not trained_last(lineage):
            return None
        source = evaluation or training
        scores = source.get("scores")
        if not scores:
            return None
        return _Scored(
            seed=int(arguments.get("seed", 1)),
            task=str(evaluation["task"] if evaluation else arguments["task"]),
            scores=_flat(scores, files[1] if evaluation else files[0]),
            train_rows=training["rows"]["train"] if training else None,
            lineage=lineage,
            evaluated=bool(evaluation),
        )
    except CheckpointError as fault:
        raise DataError(str(fault)) from fault
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as fault:
        raise DataError(
            f"{model}: its {CONFIG_NAME}, {TRAINING_NAME} or {EVALUATION_NAME} is damaged "
            f"({type(fault).__name__}: {fault}): create the folder again."
        ) from fault


def _model(lineage: list[dict[str, Any]]) -> str:
    """The model that the first step began from, without its hub owner or parent folder."""
    name = str(lineage[0].get("from") or "") if lineage else ""
    return name.rstrip("/").rpartition("/")[2]


def _flat(scores: Mapping[str, Mapping[str, Any]], path: Path) -> dict[tuple[str, str], float]:
    flat = {}
    for split, metrics in scores.items():
        for metric, value in metrics.items():
            score = score_value(value)
            if score is None:
                raise DataError(f"{path}: {split} {metric} is {value!r}, not a score in percent.")
            flat[split, metric] = score
    return flat


def _results(row: str, run: Path, seeds: list[_Scored]) -> list[Result]:
    first = seeds[0]
    for name in ("task", "train_rows"):
        values = {getattr(each, name) for each in seeds}
        if len(values) > 1:
            found = ", ".join(sorted(map(str, values)))
            raise DataError(f"the seeds of {run} differ in {name}: {found}.")
    if any(each.scores.keys() != first.scores.keys() for each in seeds):
        raise DataError(f"the seeds of {run} were scored on different splits or metrics.")
    numbers = tuple(each.seed for each in seeds)
    if len(set(numbers)) != len(numbers):
        raise DataError(f"{run} has duplicate seeds: {', '.join(map(str, numbers))}.")
    made = command([each.lineage for each in seeds], scored=first.task if first.evaluated else None)
    return [
        Result(
            task=first.task,
            row=row,
            metric=metric,
            seeds=tuple(each.scores[split, metric] for each in seeds),
            train_rows=first.train_rows,
            command=made,
            split=split,
            run=run.name,
            seed_numbers=numbers,
            model=_model(first.lineage),
        )
        for split, metric in first.scores
    ]
