"""`finetune` with several seeds: how much does the score depend on chance?

    OUT/seed-1, OUT/seed-2, ...   ordinary model folders
    OUT/seeds.json                their scores, mean and sample standard deviation
    OUT/README.md                 the same for people, and for the hub (model-index)

It can be stopped at any time. When called again, it leaves finished seeds as they are, resumes
unfinished ones, and refuses options with which the seeds would not be comparable.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.checkpoint import open_checkpoint
from sparsebert.checkpoint.atomic import replaced_file
from sparsebert.checkpoint.card import CARD_NAME, model_index
from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.checkpoint.json_files import differences, read_object, replace_json
from sparsebert.checkpoint.model_files import TRAINING_NAME
from sparsebert.checkpoint.seeds import SEEDS_NAME, seed_folder, seed_folders
from sparsebert.errors import OtherRunError, OutputError, TrainingError
from sparsebert.evaluation.results import (
    METRIC_TITLES,
    SeedScores,
    about_seeds,
    count_seeds,
    hub_results,
)
from sparsebert.evaluation.seeds import SeedExecutor, sequential
from sparsebert.progress import Progress, shown
from sparsebert.tasks.data_options import DataOptions, split_options
from sparsebert.tasks.table import TASKS, task_name
from sparsebert.training.data import read_run_data
from sparsebert.training.defaults import with_defaults
from sparsebert.training.distributed import from_main, join, main_only
from sparsebert.training.finetuning import finetune
from sparsebert.training.fingerprints import changed, run_fingerprints
from sparsebert.training.options import FinetuneOptions
from sparsebert.training.recipe import read_recipe
from sparsebert.training.records import how_trained, recorded_arguments
from sparsebert.training.work_folder import remove_left_over

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sparsebert.evaluation.user_metric import Metric
    from sparsebert.training.options import TrainingKeywords


def finetune_seeds(
    model: str | Path,
    out: str | Path,
    *,
    task: str,
    data: str | Path | None = None,
    seeds: Sequence[int] = (1, 2, 3, 4, 5),
    recipe: str | Path | None = None,
    force: bool = False,
    metric: Metric | None = None,
    executor: SeedExecutor = sequential,
    progress: Progress | None = None,
    **options: Unpack[TrainingKeywords],
) -> SeedScores:
    """Fine-tune ``model`` once for each of ``seeds`` and return the scores of all seeds in ``out``.

    Other arguments are those of `finetune`. Finished seeds are kept, unless ``force`` trains them
    again, and unfinished ones are resumed. If ``teacher`` is a folder of seeds, each seed learns
    from the teacher of the same seed. ``executor`` runs the seeds, by default one after the other
    in this process (see `sparsebert.scale.ray_executor`).

    Raises what `finetune` raises; TrainingError if ``out`` holds a seed that was trained from
    another model, on another task or with other options; OutputError if ``out`` is itself a model.
    """
    join()
    target, report = Path(out), main_only(shown(progress))
    if (target / CONFIG_NAME).is_file():
        raise OutputError(f"{out} is itself a model: choose another folder for the seeds.")
    if not seeds:
        raise TrainingError("no seeds were given.")
    columns, training = split_options(options)
    given = {**(read_recipe(recipe) if recipe else {}), **training}
    teachers = seed_folders(given["teacher"]) if given.get("teacher") else {}
    missing = [str(seed) for seed in seeds if teachers and seed not in teachers]
    if missing:
        raise TrainingError(
            f"the teacher {given['teacher']} has no seed {', '.join(missing)}: train it first, or "
            "pass one model as the teacher of all seeds."
        )
    chosen = FinetuneOptions.from_names(given)
    finished = {
        seed: folder
        for seed, folder in seed_folders(target).items()
        if not (force and seed in seeds)  # those are trained again
    }
    if finished:
        name = getattr(metric, "__name__", None)
        from_main(
            lambda: _refuse_others(finished, model, task, data, chosen, columns, teachers, name)
        )
    runs = {
        seed: {
            "model": model,
            "out": seed_folder(target, seed),
            "task": task,
            "data": data,
            "seed": seed,
            "resume": True,
            "force": force,
            **columns.given(),
            **given,
            **({"teacher": teachers[seed]} if teachers else {}),
            **({} if metric is None else {"metric": metric}),
        }
        for seed in seeds
        if force or not (seed_folder(target, seed) / TRAINING_NAME).is_file()
    }
    for seed in finished.keys() - runs.keys():
        from_main(partial(remove_left_over, finished[seed]))
    outdated = seed_folders(target).keys() & runs.keys()
    for seed, _ in executor(finetune, runs, report):
        outdated.discard(seed)
        from_main(lambda: write_summary(target, without=outdated))
    return from_main(lambda: write_summary(target))


def write_summary(folder: Path, *, without: Collection[int] = ()) -> SeedScores:
    """Rewrite seeds.json and the card of a folder of seeds from the records of its seeds.

    ``without`` are seeds that are still to be trained again, and may be those of another task.
    """
    records = {
        seed: read_object(path / TRAINING_NAME)
        for seed, path in seed_folders(folder).items()
        if seed not in without
    }
    first = next(iter(records.values()))
    arguments = {name: value for name, value in first["arguments"].items() if name != "seed"}
    name = str(arguments["task"])
    scores = SeedScores(
        name,
        TASKS[name].title if name in TASKS else name,
        {seed: record["scores"] for seed, record in records.items()},
    )
    summary = {**scores.as_dict(), "arguments": arguments, "rows": first["rows"]}
    try:
        replace_json(folder / SEEDS_NAME, summary)
        write_seeds_card(folder, scores, first)
    except OSError as error:
        raise OutputError(
            f"{folder / SEEDS_NAME} could not be written: {error.strerror}."
        ) from error
    return scores


def _refuse_others(
    finished: Mapping[int, Path],
    model: str | Path,
    task: str,
    data: str | Path | None,
    given: FinetuneOptions,
    columns: DataOptions,
    teachers: Mapping[int, Path],
    metric: str | None,
) -> None:
    """TrainingError if a finished seed was not trained as this run would train it."""
    known = {"task": task_name(task)}
    for folder in finished.values():
        if not (folder / TRAINING_NAME).is_file():
            raise TrainingError(
                f"{folder} was not made by fine-tuning: remove it, or choose another folder for "
                "the seeds."
            )
        made = read_object(folder / TRAINING_NAME)["arguments"]
        _refuse(folder, differences({"task": made.get("task")}, known))
    checkpoint = open_checkpoint(model)
    read = read_run_data(task, data, given, columns)
    options = with_defaults(given, checkpoint, read.task, read.rows)
    lineage = _lineage(checkpoint.config.raw)
    arguments = recorded_arguments(read.task, data, columns, options, metric)
    wanted = {**arguments, "model": checkpoint.source}
    teacher = open_checkpoint(options.teacher) if options.teacher and not teachers else None
    contents = run_fingerprints(checkpoint, read, teacher)
    ignored = {"seed", *(["teacher"] if teachers else [])}
    for folder in finished.values():
        made, inputs = how_trained(folder)
        earlier = _lineage(read_object(folder / CONFIG_NAME))
        made["model"] = earlier[-1]["from"] if earlier else None
        different = differences(made, wanted, ignored=ignored) + changed(inputs, contents)
        if earlier[:-1] != lineage:
            different.insert(0, "the model was made differently")
        _refuse(folder, different)


def _refuse(folder: Path, different: Sequence[str]) -> None:
    if different:
        raise OtherRunError(
            f"seed {folder.name.removeprefix('seed-')} in {folder.parent} was trained differently "
            f"({'; '.join(different)}): use the same options and input, or choose another folder."
        )


def _lineage(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    lineage: list[dict[str, Any]] = (config.get("sparsity") or {}).get("lineage", [])
    return lineage


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
        f"Models fine-tuned in the same way on {training['rows']['train']:,} rows, each with its "
        "own seed; scores in percent.",
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
    with replaced_file(folder / CARD_NAME) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
