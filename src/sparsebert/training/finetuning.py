"""`finetune`: train a dense or sparse checkpoint on a task, with every zero locked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.checkpoint import Checkpoint, open_checkpoint, resolve_model
from sparsebert.checkpoint.bge_m3 import HEADS, head_file
from sparsebert.checkpoint.folder_files import has_file
from sparsebert.checkpoint.json_files import differences, read_object
from sparsebert.checkpoint.model_files import TRAINING_NAME
from sparsebert.checkpoint.staging import check_output
from sparsebert.errors import CheckpointError, OutputError
from sparsebert.extras import need_extra
from sparsebert.progress import Progress, shown
from sparsebert.tasks.data_options import split_options
from sparsebert.tasks.table import Kind
from sparsebert.training.defaults import RunOptions, with_defaults
from sparsebert.training.distributed import from_main, join, main_only
from sparsebert.training.fingerprints import changed, run_fingerprints
from sparsebert.training.options import NEED_TEACHER, FinetuneOptions
from sparsebert.training.recipe import read_recipe
from sparsebert.training.records import how_trained, recorded_arguments

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sparsebert.evaluation.user_metric import Metric
    from sparsebert.training.distillation.teacher import Teacher
    from sparsebert.training.job import Job
    from sparsebert.training.options import TrainingKeywords
    from sparsebert.training.saving import FinetuneResult


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
    metric: Metric | None = None,
    progress: Progress | None = None,
    **options: Unpack[TrainingKeywords],
) -> FinetuneResult:
    """Fine-tune ``model`` (a dense or sparse folder or hub id) on ``task`` and write ``out``.

    Pruned weights are exactly 0.0 in the result, whatever the optimiser; everything else is
    trained. A model that was fine-tuned on the same labels keeps its head. Any other gets a new
    one, which is initialised from ``seed`` or copied from a ``teacher`` with a head of the same
    kind and width.

    ``data`` is a folder with train and validation files, a single file, or None to fetch the task
    from the hub. A single file that is named after a split is all used for training; from any
    other, a fixed share of each class is held out for scoring, and split.json lists the held-out
    rows.

    ``options`` are the fields of `FinetuneOptions` (``epochs``, ``learning_rate``, ``batch_size``,
    ``dropout`` and so on) and of `sparsebert.tasks.data_options.DataOptions` (``text_column``,
    ``label_column``, ``regression`` and so on). Training options that are not given are taken from
    ``recipe``, if there is one, and otherwise have their defaults. A recipe is a file, or the name
    of one that comes with sparsebert (`sparsebert.training.recipe`).

    ``metric`` is a function of your own, ``metric(expected, predicted)``
    (`sparsebert.evaluation.user_metric`). Its value is added to the scores, and early stopping
    chooses the best epoch by it.

    A ``teacher`` may be a folder of seeds, of which the one with the same ``seed`` teaches. A
    teacher that was never fine-tuned on a task is fine-tuned first, with the same options, and kept
    as ``OUT.teacher``. If one is there already, from the same encoder, rows and options, it is used
    again, also with ``force``; any other is an error, or trained again with ``force``.

    Checkpoints are saved in ``OUT.training`` beside ``out`` at the end of each epoch, every ten
    minutes, and on Ctrl-C or SIGTERM; ``resume`` continues from the last one, or starts over if
    there is none. That folder takes up to nine times the size of the model, twelve times with
    ``early_stopping``, and is removed on success. If memory runs out, the batch is halved and
    gradients are accumulated twice as often. On a CPU, the same seed on the same machine gives the
    same weights, resumed or not. Several processes (`sparsebert.training.distributed`) share the
    examples of each step.

    Raises DataError, CheckpointError, PatternError (the masks of ``model`` do not hold),
    OutputError and TrainingError; KeyboardInterrupt on Ctrl-C or SIGTERM, once everything is saved.
    """
    need_extra(
        "fine-tuning", "torch", "transformers", "accelerate", "pyarrow", "sklearn", "scipy", "yaml"
    )
    columns, training = split_options(options)
    chosen = FinetuneOptions.from_names(
        {**(read_recipe(recipe) if recipe else {}), **training, "seed": seed}
    )
    from sparsebert.training.job import prepare_job
    from sparsebert.training.run import run_training
    from sparsebert.training.saving import save_result
    from sparsebert.training.task_run import TaskRun
    from sparsebert.training.work_folder import disk_needed, training_output, work_folder

    join()
    report = main_only(shown(progress))
    target = Path(out)
    with training_output(target, force=force, source=resolve_model(model)) as staging:
        checkpoint = open_checkpoint(model)
        job = prepare_job(checkpoint, task, data, chosen, columns, report, metric)
        if job.teacher is not None:
            check_output(target, force=force, source=job.teacher.checkpoint.path)
        name = job.metric.name if job.metric else None
        arguments = recorded_arguments(job.task, data, columns, job.options, name)
        begun: dict[str, Any] = {
            **arguments,
            "model": _full_path(model),
            "data": _full_path(data),
            "teacher": _full_path(chosen.teacher),
            "unlabelled": _full_path(chosen.unlabelled),
            "unlabelled_rows": job.unlabelled,
            "rows": job.labelled,
        }
        contents = from_main(job.fingerprints)
        with work_folder(
            target,
            begun,
            contents,
            with_masks=job.ends_sparse,
            resume=resume,
            needed=disk_needed(checkpoint, job.options),
        ) as work:
            if job.teacher is not None:
                teach = partial(
                    finetune,
                    task=job.task.name,
                    data=data,
                    resume=resume,
                    force=force,
                    progress=lambda label, done, total: report(f"teacher: {label}", done, total),
                    **columns.given(),
                )
                record = partial(recorded_arguments, job.task, data, columns)
                teacher = _prepared_teacher(job, target, teach, record, force, report)
                job = replace(job, teacher=teacher)
            outcome = run_training(TaskRun(job), work, report)
        outcome.notes[:0] = job.teacher.notes if job.teacher is not None else []
        outcome.notes += _notes(job, outcome.plan.batch_size)
        return from_main(
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


def _notes(job: Job, batch_size: int) -> list[str]:
    """Notes on a finished run, whose batches ended up with ``batch_size`` rows."""
    from sparsebert.training.task_model import replaced_head

    notes = list(job.data.notes)
    if any(has_file(job.checkpoint.path / head_file(name)) for name in HEADS):
        notes.append(
            "the model's sparse and multi-vector heads were left out: they were not trained and no "
            "longer fit the encoder."
        )
    if batch_size < job.options.batch_size and job.task.kind is Kind.RETRIEVAL:
        notes.append(
            "smaller batches make retrieval easier, so the model learns less: each query was "
            f"compared with the documents of {batch_size} rows, not {job.options.batch_size}. A "
            "smaller max_length takes less memory."
        )
    if job.masks and job.teacher is None:
        notes.append(
            "the sparse model learned from the labels alone; with a dense model of the task as its "
            "teacher (--teacher, teacher=), it would lose less."
        )
    notes += replaced_head(job.checkpoint, job.task)
    if job.unlabelled is not None:
        notes.append(f"{job.unlabelled:,} unlabelled texts were also learned from the teacher.")
    return notes


def _prepared_teacher(
    job: Job,
    out: Path,
    teach: Callable[..., object],
    record: Callable[[RunOptions], dict[str, Any]],
    force: bool,
    progress: Progress,
) -> Teacher:
    """The job's teacher, fine-tuned first if necessary, with its outputs on the training examples.

    ``teach`` is `finetune` and ``record`` is `recorded_arguments`, both on the job's task and data.
    Raises what `finetune` raises, and OutputError if ``OUT.teacher`` holds a different teacher and
    ``force`` is not set.
    """
    from sparsebert.training.distillation.teacher import find_teacher, with_outputs
    from sparsebert.training.task_model import keeps_head

    teacher, notes = job.teacher, []
    assert teacher is not None
    if not keeps_head(teacher.checkpoint, job.task):
        folder = out.with_name(f"{out.name}.teacher")
        found = _train_teacher(job, teacher.checkpoint, folder, teach, record, force)
        notes.append(
            f"the teacher {teacher.checkpoint.source} has no head for {job.task.name}, so it was "
            f"fine-tuned first{' (by an earlier run)' if found else ''} with the same options and "
            f"is kept as {folder.name}."
        )
        options = replace(job.options, teacher=str(folder))
        tokens = job.training.tokens
        teacher = find_teacher(options, job.checkpoint, job.task, tokens, job.order)
    teacher = with_outputs(
        teacher,
        job.training,
        job.task.kind,
        precision=job.options.precision,
        batch_size=job.options.batch_size,
        progress=progress,
    )
    return replace(teacher, notes=notes)


def _train_teacher(
    job: Job,
    encoder: Checkpoint,
    folder: Path,
    teach: Callable[..., object],
    record: Callable[[RunOptions], dict[str, Any]],
    force: bool,
) -> bool:
    """Fine-tune ``encoder`` on the task into ``folder``; True if an earlier run has done that.

    The options are those given for the student, except for those that prune, quantise or distil.
    ``force`` only trains again what would become another teacher.
    """
    options = _on_its_own(job.given)
    resolved = with_defaults(options, encoder, job.task, len(job.data.train))
    contents = run_fingerprints(encoder, replace(job.data, unlabelled=None), None)
    if not options.early_stopping:
        del contents["the validation rows"]  # they do not affect training

    def is_trained() -> bool:
        if not (folder.is_dir() and any(folder.iterdir())):
            return False
        expected = {**record(resolved), "from": encoder.source, "rows": job.labelled}
        different = _differences(folder, expected, contents)
        if different and not force:
            raise OutputError(
                f"{folder} holds a teacher that was trained differently ({different}): remove it, "
                "pass --force, or pass it as the teacher to use it as it is."
            )
        return not different

    found = from_main(is_trained)
    if not found:
        teach(encoder.path, folder, **options.as_dict())
    return found


def _on_its_own(options: FinetuneOptions) -> FinetuneOptions:
    """The same training without a teacher, pruning or quantisation."""
    special = ("teacher", *NEED_TEACHER, "method", "pattern", "shared_rows", "quantize")
    defaults: dict[str, Any] = {
        each.name: each.default for each in fields(options) if each.name in special
    }
    return replace(options, **defaults)


def _differences(folder: Path, expected: dict[str, Any], contents: dict[str, str]) -> str:
    """How a trained teacher's arguments and inputs differ from those expected, or ""."""
    try:
        arguments, inputs = how_trained(folder)
        lineage = (open_checkpoint(folder).config.sparsity or {})["lineage"]
        rows = read_object(folder / TRAINING_NAME)["rows"]["train"]
        found = {**arguments, "from": lineage[-1]["from"], "rows": rows}
        different = differences(found, expected) + changed(inputs, contents)
    except (CheckpointError, KeyError, IndexError, TypeError, AttributeError):
        return "it is not a complete folder written by sparsebert finetune"
    return "; ".join(different)


def _full_path(path: str | Path | None) -> str | None:
    """The absolute path of a file or folder; anything else (a hub id) as it is."""
    if path is None or not Path(path).exists():
        return None if path is None else str(path)
    return str(Path(path).resolve())
