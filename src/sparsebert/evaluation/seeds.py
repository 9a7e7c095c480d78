"""`evaluate` for a folder of seeds, saving each score beside its model.

Seeds run one after the other in this process, or wherever another `SeedExecutor` runs them, such as
on a Ray cluster (`sparsebert.scale.ray_executor`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparsebert.checkpoint import resolve_model
from sparsebert.checkpoint.card import write_scores
from sparsebert.checkpoint.hub import source_name
from sparsebert.checkpoint.json_files import replace_json
from sparsebert.checkpoint.model_files import EVALUATION_NAME
from sparsebert.checkpoint.seeds import seed_folders
from sparsebert.errors import CheckpointError, OutputError
from sparsebert.evaluation.evaluator import evaluate
from sparsebert.evaluation.results import Evaluation, SeedScores, hub_results
from sparsebert.packing import is_packed
from sparsebert.progress import Progress, named, shown
from sparsebert.tasks.table import TASKS

SeedExecutor = Callable[
    [Callable[..., Any], Mapping[int, Mapping[str, Any]], Progress], Iterator[tuple[int, Any]]
]
"""Calls a function with the arguments of each seed; yields (seed, result) as each one finishes."""


def sequential(
    function: Callable[..., Any], arguments: Mapping[int, Mapping[str, Any]], progress: Progress
) -> Iterator[tuple[int, Any]]:
    """The default `SeedExecutor`: in order, in this process."""
    for seed, given in arguments.items():
        yield seed, function(**given, progress=named(progress, f"seed {seed}"))


def evaluate_seeds(
    model: str | Path,
    *,
    task: str,
    seeds: tuple[int, ...] | None = None,
    executor: SeedExecutor = sequential,
    progress: Progress | None = None,
    **arguments: Any,
) -> SeedScores:
    """Score the models in a folder of seeds on a task: those of ``seeds``, or all of them.

    ``arguments`` are those of `evaluate`. ``executor`` runs the seeds, by default one after the
    other in this process. Each score is saved in evaluation.json beside its model as soon as it is
    known, and all of them, with mean and standard deviation, in the folder's own evaluation.json.
    Raises CheckpointError for a folder without seeds or without those of ``seeds``, and what
    `evaluate` raises.
    """
    there = seed_folders(model)
    if not there:
        raise CheckpointError(
            f"{model} is not a folder of seeds (seed-1, seed-2, ...): pass one made by `finetune "
            "--seeds`, or name one with `evaluate --seeds --out`."
        )
    missing = [str(seed) for seed in seeds or () if seed not in there]
    if missing:
        raise CheckpointError(
            f"{model} has the seeds {', '.join(map(str, there))} but not {', '.join(missing)}."
        )
    report = shown(progress)
    evaluations: dict[int, Evaluation] = {}
    wanted = seeds or tuple(there)
    runs = {seed: {"model": there[seed], "task": task, **arguments} for seed in wanted}
    for seed, evaluation in executor(evaluate, runs, report):
        evaluations[seed] = evaluation
        save_evaluation(evaluation)
    first = evaluations[wanted[0]]
    by_seed = {seed: evaluations[seed].scores for seed in wanted}
    scores = SeedScores(first.task, first.title, by_seed)
    _save(Path(model), {**scores.as_dict(), "engine": first.engine, "rows": first.rows})
    return scores


def save_evaluation(evaluation: Evaluation) -> None:
    """Save scores in evaluation.json beside the model, and in its model card."""
    folder = resolve_model(evaluation.model)
    _save(folder, replace(evaluation, model=source_name(folder)).as_dict())
    if evaluation.task in TASKS:  # a user's own data set has no name on the hub
        results = hub_results(TASKS[evaluation.task], evaluation.scores)
        write_scores(folder, results, packed=is_packed(folder))


def _save(folder: Path, document: dict[str, Any]) -> None:
    try:
        replace_json(folder / EVALUATION_NAME, document)
    except OSError as error:
        raise OutputError(
            f"the scores could not be written to {folder / EVALUATION_NAME}: {error.strerror}."
        ) from error
