"""The teacher of a distillation: found, checked against the task and the student, or trained first.

A teacher is any dense or sparse folder (or hub id) that reads the student's vocabulary. With the
task's head on it, it teaches as it is; an encoder is fine-tuned on the task first, with the
student's own options, and kept as ``OUT.teacher`` beside OUT, where a resumed or repeated run finds
it. In a folder of seeds the teacher of seed N is its ``seed-N``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import Checkpoint, open_checkpoint, resolve_model
from sparsebert.checkpoint.auxiliary_files import TRAINING_NAME
from sparsebert.checkpoint.config import CONFIG_NAME, Head
from sparsebert.checkpoint.json_files import differences, read_object
from sparsebert.checkpoint.seeds import seed_folders
from sparsebert.checkpoint.token_ids import unknown_ids
from sparsebert.errors import CheckpointError, OutputError, TrainingError
from sparsebert.progress import Progress
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.table import Kind, Task
from sparsebert.tasks.tokens import TokenRows, load_tokenizer
from sparsebert.training.defaults import with_defaults
from sparsebert.training.options import NEED_TEACHER, FinetuneOptions
from sparsebert.training.precision import autocast, device_type, resolve_precision
from sparsebert.training.ranks import from_main, main_first
from sparsebert.training.task_model import build_model, head_order, keeps_head, task_config
from sparsebert.training.teacher_cache import cached_outputs, outputs_key
from sparsebert.training.teacher_outputs import TeacherOutputs, compute_outputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sparsebert.training.job import Job

_UNTAUGHT = (Head.ENCODER, Head.MASKED_LM)  # no task was ever taught to these


@dataclass(frozen=True)
class Teacher:
    """A model that teaches, or will once it is fine-tuned on the task.

    ``columns`` says which of its logits each of the student's answers to, int64 ``[labels]``; None
    where the task has no labels. ``outputs`` come with `prepare_teacher`, in the student's order.
    """

    checkpoint: Checkpoint
    task: Task
    columns: npt.NDArray[np.int64] | None = field(repr=False)
    outputs: TeacherOutputs | None = field(default=None, repr=False)
    notes: list[str] = field(default_factory=list)

    def model(self) -> PreTrainedModel:
        """The teacher, loaded, in fp32 and without dropout."""
        config = task_config(self.checkpoint, self.task)
        return build_model(self.checkpoint, config, keep_head=True, dropout=0.0, seed=0).eval()


def find_teacher(
    options: FinetuneOptions,
    student: Checkpoint,
    task: Task,
    rows: TokenRows,
    student_order: npt.NDArray[np.int64] | None,
) -> Teacher:
    """The teacher that the options name, seen to fit the task, the student and the training rows.

    ``student_order`` says where each of the task's labels stands in the student's head. Raises
    CheckpointError for what is no model or has another task's head, and TrainingError for a
    vocabulary, a size or a seed that does not fit.
    """
    assert options.teacher is not None
    checkpoint = _open(options.teacher, options.seed)
    _check(checkpoint, student, task, rows, options.hidden_weight)
    return Teacher(checkpoint, task, _columns(checkpoint, task, student_order))


def prepare_teacher(
    job: Job,
    out: Path,
    arguments: dict[str, Any],
    *,
    data: str | Path | None,
    columns: DataOptions,
    resume: bool,
    force: bool,
    progress: Progress,
) -> Teacher:
    """The job's teacher, trained if need be, with its outputs on the training rows.

    ``arguments`` are the run's as its lineage has them. Raises OutputError if ``OUT.teacher`` holds
    something else (and ``force`` is not set), and what `finetune` raises.
    """
    teacher, rows, notes = job.teacher, job.rows.rows, []
    assert teacher is not None
    if not keeps_head(teacher.checkpoint, job.task):
        folder = _train(teacher, job, out, arguments, data, columns, resume, force, progress)
        notes.append(
            f"the teacher {teacher.checkpoint.source} has no head for {job.task.name}, so it was "
            f"fine-tuned first with the same options and is kept as {folder.name}."
        )
        options = replace(job.options, teacher=str(folder))
        teacher = find_teacher(options, job.checkpoint, job.task, rows, job.order)
    precision = resolve_precision(job.options.precision)

    def ask() -> TeacherOutputs:
        with autocast(precision):
            return compute_outputs(
                teacher.model().to(device_type()),
                rows,
                job.task.kind,
                batch_size=job.options.batch_size,
                progress=progress,
            )

    key = outputs_key(teacher.checkpoint, rows, precision)
    # The main process asks, and the others find its answers in the cache where they share one.
    with main_first():
        outputs = cached_outputs(key, job.task.kind, rows, ask)
    if teacher.columns is not None:
        outputs = outputs.with_columns(teacher.columns)
    return replace(teacher, outputs=outputs, notes=notes)


def _train(
    teacher: Teacher,
    job: Job,
    out: Path,
    arguments: dict[str, Any],
    data: str | Path | None,
    columns: DataOptions,
    resume: bool,
    force: bool,
    progress: Progress,
) -> Path:
    """Fine-tune an encoder on the task into ``OUT.teacher``; or find it there, trained like that.

    The options are those that the student was given, save for those that make it a sparse,
    quantised or taught one.
    """
    from sparsebert.training.finetuning import finetune

    folder = out.with_name(f"{out.name}.teacher")
    options = _on_its_own(job.asked)
    resolved = with_defaults(options, teacher.checkpoint, job.task, len(job.data.train))

    def is_trained() -> bool:
        if not (folder.is_dir() and any(folder.iterdir())):
            return False
        expected = {**arguments, **resolved.as_dict(), "rows": job.examples}
        different = _differences(folder, teacher.checkpoint.source, expected)
        if different and not force:
            raise OutputError(
                f"{folder} holds a teacher that was trained otherwise ({different}): remove it, "
                "pass --force, or name it as the teacher to use it as it is."
            )
        return not different

    if from_main(is_trained):
        return folder
    finetune(
        teacher.checkpoint.path,
        folder,
        task=job.task.name,
        data=data,
        resume=resume,
        force=force,
        progress=lambda label, done, total: progress(f"teacher: {label}", done, total),
        **columns.given(),
        **options.as_dict(),
    )
    return folder


def _open(teacher: str, seed: int) -> Checkpoint:
    """The teacher's checkpoint; of a folder of seeds that of ``seed``."""
    folder = resolve_model(teacher)
    seeds = seed_folders(folder)
    if (folder / CONFIG_NAME).is_file() or not seeds:
        return open_checkpoint(teacher)
    if seed not in seeds:
        raise TrainingError(
            f"the teacher {teacher} holds seeds {', '.join(map(str, seeds))} and this run is of "
            f"seed {seed}: train that seed, or name one of its folders as the teacher."
        )
    return open_checkpoint(seeds[seed])


def _check(
    teacher: Checkpoint, student: Checkpoint, task: Task, rows: TokenRows, hidden_weight: float
) -> None:
    if not (keeps_head(teacher, task) or teacher.config.head in _UNTAUGHT):
        labels = ", ".join(teacher.config.labels)
        raise CheckpointError(
            f"the teacher {teacher.path} was fine-tuned on another task (its head is "
            f"{teacher.config.head.value}{f', its labels are {labels}' if labels else ''}), and "
            f"{task.name} asks for {_asked(task)}: fine-tune it on the task first."
        )
    theirs = load_tokenizer(teacher.path).get_vocab()
    if theirs != load_tokenizer(student.path).get_vocab():
        raise TrainingError(
            f"the teacher {teacher.path} reads another vocabulary than {student.path}: token ids "
            "would mean other words to it. Take a teacher with the same tokenizer."
        )
    longest, positions = int(rows.lengths.max()), teacher.config.max_length
    if longest > positions:
        raise TrainingError(
            f"the training rows have up to {longest} tokens and the teacher {teacher.path} has "
            f"{positions} positions: set max_length to {positions} at most."
        )
    for what, most, have in unknown_ids(teacher.config, rows.ids, rows.type_ids):
        raise TrainingError(
            f"the training rows use {what} {most} and the teacher {teacher.path} knows only "
            f"{have}: take another teacher."
        )
    mine, wide = student.config.hidden_size, teacher.config.hidden_size
    if hidden_weight > 0 and mine != wide:
        raise TrainingError(
            f"hidden states of {teacher.path} are {wide} wide and those of {student.path} {mine}: "
            "they cannot be compared. Leave hidden_weight at 0; attention_weight works between "
            "any sizes."
        )


def _columns(
    teacher: Checkpoint, task: Task, student_order: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.int64] | None:
    """`Teacher.columns`: both heads' labels are matched by the names of the task's."""
    if student_order is None:
        return None
    columns = np.empty_like(student_order)
    columns[student_order] = head_order(teacher, task)
    return columns


def _asked(task: Task) -> str:
    if task.kind is Kind.CLASSIFICATION:
        return ", ".join(task.labels)
    return "a number" if task.kind is Kind.REGRESSION else "a span"


def _on_its_own(options: FinetuneOptions) -> FinetuneOptions:
    """The same training for a model without a teacher, dense and in floating point."""
    special = ("teacher", *NEED_TEACHER, "method", "pattern", "shared_rows", "quantize")
    defaults: dict[str, Any] = {
        each.name: each.default for each in fields(options) if each.name in special
    }
    return replace(options, **defaults)


def _differences(folder: Path, source: str, expected: dict[str, Any]) -> str:
    """How a trained teacher's origin and arguments differ from those wanted; "" if not at all."""
    try:
        record = open_checkpoint(folder).config.sparsity or {}
        step = record["lineage"][-1]
        found = {
            **FinetuneOptions().as_dict(),  # an option that is younger than the teacher
            **step["arguments"],
            "from": step["from"],
            "rows": read_object(folder / TRAINING_NAME)["rows"]["train"],
        }
    except (CheckpointError, KeyError, IndexError, TypeError):
        return "it is not a whole folder of sparsebert finetune"
    return "; ".join(differences(found, {**expected, "from": source}))
