"""`finetune`: a dense or sparse checkpoint to a task, with every zero locked."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.checkpoint import open_checkpoint, resolve_model, staged_folder
from sparsebert.checkpoint.staging import check_output
from sparsebert.extras import need_extra
from sparsebert.progress import Progress, shown
from sparsebert.tasks.data_options import split_options
from sparsebert.training.options import FinetuneOptions
from sparsebert.training.ranks import from_main, join, main_only, wait_for_all
from sparsebert.training.recipe import read_recipe, source_names

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sparsebert.training.options import TrainingKeywords
    from sparsebert.training.result import FinetuneResult


def finetune(
    model: str | Path,
    out: str | Path,
    *,
    task: str,
    data: str | Path | None = None,
    seed: int = 1,
    recipe: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    **options: Unpack[TrainingKeywords],
) -> FinetuneResult:
    """Fine-tune ``model`` (a dense or sparse folder or hub id) on ``task`` and write ``out``.

    Weights that are zero under the model's masks are exactly 0.0 in the result, whatever the
    optimiser; everything else trains. A model without a head for the task gets a fresh one, seeded;
    one that was fine-tuned on the same labels goes on with its own.

    ``data`` is a folder with train and validation files, a single file, or None for the hub. A file
    named after a split is all training data; of any other a fixed share of each class is held out
    to score on, and split.json lists its rows. ``options`` are those of `FinetuneOptions`, by name:
    epochs, learning_rate, batch_size, dropout and so on, and those of
    `sparsebert.tasks.data_options.DataOptions`: text_column, label_column, regression and so on.
    What is not given comes from ``recipe``, a file (see `sparsebert.training.recipe`), else is the
    default.

    A ``teacher`` may be a folder of seeds: the teacher is then the one of ``seed``. One that never
    learnt a task is fine-tuned on it first, with the same options, and kept as ``OUT.teacher``.

    Checkpoints go to ``OUT.training`` beside ``out``, at every epoch's end, every ten minutes, and
    on Ctrl-C or SIGTERM; ``resume`` goes on from the last one (and starts anew if there is none).
    The folder is removed on success, and takes up to nine times the model's size until then. When
    memory runs out the batch is halved and accumulated twice as often. The same seed on the same
    machine gives the same weights on a CPU, resumed or not. Several processes
    (`sparsebert.training.ranks`) share the rows of each step.

    Raises DataError, CheckpointError, PatternError (the masks of ``model`` do not hold),
    OutputError and TrainingError; KeyboardInterrupt on Ctrl-C, once everything is saved.
    """
    need_extra(
        "fine-tuning", "torch", "transformers", "accelerate", "pyarrow", "sklearn", "scipy", "yaml"
    )
    columns, training = split_options(options)
    chosen = FinetuneOptions.from_names(
        {**(read_recipe(recipe) if recipe else {}), **training, "seed": seed}
    )
    from sparsebert.training.disk_space import check_disk, disk_needed
    from sparsebert.training.job import prepare_job
    from sparsebert.training.run import run_job
    from sparsebert.training.saving import save_result
    from sparsebert.training.teacher import prepare_teacher
    from sparsebert.training.work_folder import WorkFolder, locked_work_folder

    join()
    report = main_only(shown(progress))
    target = Path(out)
    with ExitStack() as locked, ExitStack() as stack:
        from_main(lambda: locked.enter_context(locked_work_folder(target)))
        staging = from_main(
            lambda: stack.enter_context(
                staged_folder(target, force=force, source=resolve_model(model))
            )
        )
        checkpoint = open_checkpoint(model)
        job = prepare_job(checkpoint, task, data, chosen, columns, report)
        if job.teacher is not None:
            check_output(target, force=force, source=job.teacher.checkpoint.path)
        arguments: dict[str, Any] = {
            "task": job.task.name,
            "data": job.task.hub_id if data is None else Path(data).name,
            **columns.given(),
            **job.options.as_dict(),
            **source_names(job.options),
        }
        begun: dict[str, Any] = {
            **arguments,
            "model": _place(model),
            "data": _place(data),
            "teacher": _place(chosen.teacher),
            "unlabelled": _place(chosen.unlabelled),
            "unlabelled_rows": job.unlabelled,
            "rows": job.examples,
        }
        contents = from_main(job.fingerprints)
        work = from_main(
            lambda: WorkFolder.open(
                target, begun, contents, with_masks=job.ends_sparse, resume=resume
            )
        )
        needed = disk_needed(checkpoint, job.options)
        with work.tidied_on_failure():
            from_main(lambda: check_disk(target, work.path, needed))
            if job.teacher is not None:
                teacher = prepare_teacher(
                    job,
                    target,
                    arguments,
                    data=data,
                    columns=columns,
                    resume=resume,
                    force=force,
                    progress=report,
                )
                job = replace(job, teacher=teacher)
            outcome = run_job(job, work, report)
            outcome.notes[:0] = job.teacher.notes if job.teacher is not None else []
            outcome.notes += job.data.notes
            if job.unlabelled is not None:
                outcome.notes.append(
                    f"the teacher taught with {job.unlabelled:,} unlabelled texts besides."
                )
        result = from_main(
            lambda: save_result(
                staging,
                job,
                outcome,
                model=str(model),
                out=str(target),
                arguments=arguments,
                fingerprints=contents,
            )
        )
    wait_for_all()
    return result


def _place(path: str | Path | None) -> str | None:
    """A folder by its full path, whatever it was called from; anything else as it is."""
    if path is None or not Path(path).exists():
        return None if path is None else str(path)
    return str(Path(path).resolve())
