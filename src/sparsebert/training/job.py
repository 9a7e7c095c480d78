"""Everything a run needs, read and checked before the first step: a mistake shows in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import Checkpoint, read_masks
from sparsebert.checkpoint.token_ids import check_ids
from sparsebert.errors import DataError
from sparsebert.evaluation.evaluator import token_limit
from sparsebert.evaluation.scoring import PreparedSplit, f1_note
from sparsebert.inference.folder_tokenizer import folder_tokenizer
from sparsebert.patterns import BoolMatrix
from sparsebert.progress import Progress
from sparsebert.pruning.gradual import layers_to_prune
from sparsebert.tasks.custom import find_task
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.division import SPLIT_NAME, Division, divide
from sparsebert.tasks.examples import Examples, load_split, selection, validation_splits
from sparsebert.tasks.files import undivided_file
from sparsebert.tasks.labels import label_notes
from sparsebert.tasks.table import CUSTOM, Kind, Task
from sparsebert.tasks.tokens import load_tokenizer
from sparsebert.training.options import FinetuneOptions
from sparsebert.training.task_model import (
    head_order,
    keeps_head,
    lasting_masks,
    task_config,
)
from sparsebert.training.teacher import Teacher, find_teacher
from sparsebert.training.unlabelled import read_unlabelled

if TYPE_CHECKING:
    from sparsebert.training.trainer import TrainingRows


@dataclass(frozen=True)
class Job:
    """A fine-tuning run, ready to start.

    ``config`` is the result's config.json before this step joins its lineage; ``masks`` are the
    model's own, which it starts from; ``to_prune`` are the layers (shapes by canonical name) that
    the options' method prunes; ``order`` says where each of the task's labels stands in the
    head; ``max_length`` is the limit that was used; ``examples`` are the labelled ones of ``rows``;
    ``teacher`` is the one that the options name; ``division`` says which rows were held out of data
    in one piece; ``notes`` are on the data.
    """

    checkpoint: Checkpoint
    task: Task
    options: FinetuneOptions
    config: dict[str, Any] = field(repr=False)
    keep_head: bool
    masks: dict[str, BoolMatrix] = field(repr=False)
    to_prune: dict[str, tuple[int, int]] = field(repr=False)
    order: npt.NDArray[np.int64] | None
    max_length: int
    examples: int
    rows: TrainingRows = field(repr=False)
    validation: list[PreparedSplit] = field(repr=False)
    teacher: Teacher | None = None
    division: Division | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def unlabelled(self) -> int | None:
        """How many of the rows have no label; None without such texts."""
        return None if self.options.unlabelled is None else len(self.rows) - self.examples

    @property
    def ends_sparse(self) -> bool:
        """Whether the result, and each checkpoint on the way, has masks."""
        return bool(self.masks) or self.options.method != "lock"


def prepare_job(
    checkpoint: Checkpoint,
    task_name: str,
    data: str | Path | None,
    options: FinetuneOptions,
    columns: DataOptions,
    progress: Progress,
) -> Job:
    """Read task, data and masks; tokenise once. Raises DataError, PatternError, CheckpointError."""
    task = find_task(task_name, data, options=columns)
    if "validation_share" in columns.given() and undivided_file(data) is None:
        raise DataError(
            "validation_share is for data in one file that is named after no split: "
            f"{task.hub_id if data is None else data} comes in splits, so leave it out."
        )
    masks = lasting_masks(read_masks(checkpoint), checkpoint, task)
    to_prune = {}
    if options.method != "lock":
        to_prune = layers_to_prune(checkpoint, masks, options.target)
    train, held_out, division = _read(task, data, options.max_rows, columns.validation_share)
    if options.early_stopping and not held_out:
        raise DataError(
            f"early stopping needs a validation split, and {data} has none: give a folder with "
            f"train and {task.validation_splits[0]} files."
        )
    # Told now, and not when the trained model is to read: a tokenizer that the engine refuses.
    folder_tokenizer(checkpoint.path, positions=checkpoint.config.max_length)
    tokenizer = load_tokenizer(checkpoint.path)
    length = token_limit(task, checkpoint.config, options.max_length)

    def prepare(examples: Examples) -> PreparedSplit:
        split = PreparedSplit.make(examples, tokenizer, length, progress)
        check_ids(checkpoint.path, checkpoint.config, split.rows.ids, split.rows.type_ids)
        return split

    prepared = prepare(train)
    order = head_order(checkpoint, task)
    rows = _training_rows(train, prepared, order)
    if options.unlabelled is not None:
        rows = rows.and_unlabelled(prepare(read_unlabelled(options, task)).rows)
    teacher = find_teacher(options, checkpoint, task, rows.rows, order) if options.teacher else None
    return Job(
        checkpoint=checkpoint,
        task=task,
        options=options,
        config=task_config(checkpoint, task),
        keep_head=keeps_head(checkpoint, task),
        masks=masks,
        to_prune=to_prune,
        order=order,
        max_length=length,
        examples=len(train),
        rows=rows,
        validation=[prepare(each) for each in held_out],
        teacher=teacher,
        division=division,
        notes=_notes(task, [train, *held_out], division),
    )


def _read(
    task: Task, data: str | Path | None, max_rows: int | None, share: float
) -> tuple[Examples, list[Examples], Division | None]:
    """Training rows, the rows of each validation split, and how data in one piece was divided."""
    file = undivided_file(data)
    if file is None or not share:
        # A file that is named after a split is all training data.
        alone = file is not None or (data is not None and Path(data).is_file())
        splits = () if alone else validation_splits(task, data)
        train = load_split(task, data, "train", max_rows=max_rows)
        return train, [load_split(task, data, split) for split in splits], None
    whole = load_split(task, file, "train")
    division = divide(whole, file, share)
    train, held = division.parts(whole, task.validation_splits[0])
    chosen = selection(len(train), max_rows)
    return train if chosen is None else train.take(chosen, "train"), [held], division


def _notes(task: Task, read: list[Examples], division: Division | None) -> list[str]:
    """What is to be said of the data."""
    notes = [note for examples in read for note in examples.notes]
    if task.name == CUSTOM:
        notes += label_notes(task)
    if division is not None:
        notes.append(
            f"{division.file} has no splits: {len(division.validation):,} of its "
            f"{division.rows:,} rows were held out to score on, which {SPLIT_NAME} lists."
        )
    return [*dict.fromkeys(notes), *(f1_note(task) if len(read) > 1 else [])]


def _training_rows(
    examples: Examples, prepared: PreparedSplit, order: npt.NDArray[np.int64] | None
) -> TrainingRows:
    from sparsebert.training.trainer import TrainingRows

    labels: npt.NDArray[Any] = examples.labels
    if prepared.windows is not None:
        labels = prepared.windows.answer
    elif examples.task.kind is Kind.CLASSIFICATION and order is not None:
        labels = order[examples.labels]
    return TrainingRows(examples.task.kind, prepared.rows, labels)
