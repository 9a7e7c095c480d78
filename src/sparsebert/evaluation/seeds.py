"""`evaluate` over a folder of seeds, and scores kept beside the model they belong to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sparsebert.checkpoint import resolve_model
from sparsebert.checkpoint.auxiliary_files import EVALUATION_NAME
from sparsebert.checkpoint.card import write_scores
from sparsebert.checkpoint.hub import source_name
from sparsebert.checkpoint.json_files import replace_json
from sparsebert.checkpoint.seeds import seed_folders
from sparsebert.errors import CheckpointError, OutputError
from sparsebert.evaluation.evaluator import evaluate
from sparsebert.evaluation.model_index import hub_results
from sparsebert.evaluation.result import Evaluation
from sparsebert.evaluation.seed_runs import Spread, one_by_one
from sparsebert.evaluation.seed_scores import SeedScores
from sparsebert.packing import is_packed
from sparsebert.progress import Progress, shown
from sparsebert.tasks.table import TASKS


def evaluate_seeds(
    model: str | Path,
    *,
    task: str,
    seeds: tuple[int, ...] | None = None,
    spread: Spread = one_by_one,
    progress: Progress | None = None,
    **arguments: Any,
) -> SeedScores:
    """Score the models of a folder of seeds on a task, those of ``seeds`` or all of them.

    ``arguments`` are those of `evaluate`; ``spread`` is who runs the seeds
    (`sparsebert.scale.ray_spread`). Each score is kept beside its model in evaluation.json as soon
    as it is known, and all of them, with mean and deviation, beside the seeds. Raises
    CheckpointError for a folder without (these) seeds, and what `evaluate` raises.
    """
    there = seed_folders(model)
    if not there:
        raise CheckpointError(
            f"{model} is not a folder of seeds (seed-1, seed-2, ...): make one with `finetune "
            "--seeds`, or name it with `evaluate --seeds --out`."
        )
    missing = [str(seed) for seed in seeds or () if seed not in there]
    if missing:
        raise CheckpointError(
            f"{model} has the seeds {', '.join(map(str, there))} and not {', '.join(missing)}."
        )
    report = shown(progress)
    found: dict[int, Evaluation] = {}
    wanted = seeds or tuple(there)
    runs = {seed: {"model": there[seed], "task": task, **arguments} for seed in wanted}
    for seed, evaluation in spread(evaluate, runs, report):
        found[seed] = evaluation
        save_evaluation(evaluation)
    first = found[wanted[0]]
    scores = SeedScores(first.task, first.title, {seed: found[seed].scores for seed in wanted})
    _save(Path(model), {**scores.as_dict(), "engine": first.engine, "rows": first.rows})
    return scores


def save_evaluation(evaluation: Evaluation) -> None:
    """Keep scores in evaluation.json beside the model that they are of, and in its card."""
    folder = resolve_model(evaluation.model)
    _save(folder, replace(evaluation, model=source_name(folder)).as_dict())
    if evaluation.task in TASKS:  # a user's own data has no name on the hub
        found = hub_results(TASKS[evaluation.task], evaluation.scores)
        write_scores(folder, found, packed=is_packed(folder))


def _save(folder: Path, document: dict[str, Any]) -> None:
    try:
        replace_json(folder / EVALUATION_NAME, document)
    except OSError as error:
        raise OutputError(
            f"the scores could not be written to {folder / EVALUATION_NAME}: {error.strerror}."
        ) from error
