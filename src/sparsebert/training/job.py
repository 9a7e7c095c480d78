"""Everything a run needs, read and checked up front, so that mistakes show within seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import Checkpoint, read_masks
from sparsebert.checkpoint.model_settings import read_similarity
from sparsebert.checkpoint.tokenizer import check_ids
from sparsebert.evaluation.embedding_scores import EmbeddedSplit
from sparsebert.evaluation.scoring import PreparedSplit, ScoredSplit
from sparsebert.evaluation.user_metric import Metric, UserMetric, user_metric
from sparsebert.inference.tokenizing import folder_tokenizer
from sparsebert.patterns import BoolMatrix
from sparsebert.progress import Progress
from sparsebert.pruning.gradual import layers_to_prune
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.embedding_texts import TextReader
from sparsebert.tasks.examples import Examples
from sparsebert.tasks.table import Kind, Task
from sparsebert.tasks.tokens import load_tokenizer
from sparsebert.tasks.windows import Windows
from sparsebert.tasks.word_tokens import UNLABELLED, WordTokens
from sparsebert.training.data import RunData, TrainingExamples, read_run_data
from sparsebert.training.defaults import RunOptions, with_defaults
from sparsebert.training.distillation.teacher import Teacher, find_teacher
from sparsebert.training.embedding.examples import EmbeddingExamples, read_unlabelled_texts
from sparsebert.training.fingerprints import run_fingerprints
from sparsebert.training.options import FinetuneOptions
from sparsebert.training.task_model import (
    check_answers,
    head_order,
    keeps_head,
    lasting_masks,
    task_config,
)
from sparsebert.training.trainer import TrainingSet


@dataclass(frozen=True)
class Job:
    """A fine-tuning run, ready to start.

    ``given`` are the user's options, ``options`` those with the defaults resolved. ``config`` is
    the result's config.json before this step is added to its lineage; ``masks`` are the masks that
    the model starts with; ``to_prune`` are the layers (shapes by canonical name) that the options'
    method prunes; ``order`` is the position of each of the task's labels in the head; ``training``
    and ``validation`` are the tokenised ``data``; ``teacher`` is the one named in the options, and
    ``metric`` is the user's own. ``reader`` reads texts for an embedding model.
    """

    checkpoint: Checkpoint
    task: Task
    given: FinetuneOptions
    options: RunOptions
    config: dict[str, Any] = field(repr=False)
    keep_head: bool
    masks: dict[str, BoolMatrix] = field(repr=False)
    to_prune: dict[str, tuple[int, int]] = field(repr=False)
    order: npt.NDArray[np.int64] | None
    data: RunData = field(repr=False)
    training: TrainingSet = field(repr=False)
    validation: Sequence[ScoredSplit] = field(repr=False)
    reader: TextReader | None = field(repr=False)
    teacher: Teacher | None = None
    metric: UserMetric | None = None

    @property
    def labelled(self) -> int:
        """How many of the training examples have a label."""
        return len(self.data.train)

    @property
    def unlabelled(self) -> int | None:
        """How many of the training examples have no label; None without such texts."""
        return None if self.options.unlabelled is None else len(self.training) - self.labelled

    @property
    def ends_sparse(self) -> bool:
        """Whether the result, and each checkpoint on the way, has masks."""
        return bool(self.masks) or self.options.method != "lock"

    def fingerprints(self) -> dict[str, str]:
        """The fingerprints of this run's inputs."""
        return run_fingerprints(
            self.checkpoint, self.data, self.teacher.checkpoint if self.teacher else None
        )


def prepare_job(
    checkpoint: Checkpoint,
    task_name: str,
    data: str | Path | None,
    given: FinetuneOptions,
    columns: DataOptions,
    progress: Progress,
    metric: Metric | None = None,
) -> Job:
    """Read the task, data and masks, tokenise the data, and find the teacher.

    Raises DataError, PatternError, CheckpointError and TrainingError.
    """
    check_answers(checkpoint)
    read = read_run_data(task_name, data, given, columns)
    task = read.task
    options = with_defaults(given, checkpoint, task, read.rows)
    masks = lasting_masks(read_masks(checkpoint), checkpoint, task)
    to_prune = {}
    if options.method != "lock":
        to_prune = layers_to_prune(checkpoint, masks, options.target)
    # Fail now, not after training, if the engine cannot read the tokenizer.
    folder_tokenizer(checkpoint.path, positions=checkpoint.config.max_length)
    order = head_order(checkpoint, task)
    own = user_metric(metric, task.metrics)
    training: TrainingSet
    validation: Sequence[ScoredSplit]
    reader = None
    if task.embeds:
        reader = TextReader(checkpoint.path, checkpoint.config, max_length=options.max_length)
        training, validation = _embedding_rows(checkpoint, read, reader, own, progress)
    else:
        training, validation = _head_rows(checkpoint, read, options, order, own, progress)
    teacher = None
    if options.teacher:
        teacher = find_teacher(options, checkpoint, task, training.tokens, order)
    return Job(
        checkpoint=checkpoint,
        task=task,
        given=given,
        options=options,
        config=task_config(checkpoint, task),
        keep_head=keeps_head(checkpoint, task),
        masks=masks,
        to_prune=to_prune,
        order=order,
        data=read,
        training=training,
        validation=validation,
        reader=reader,
        teacher=teacher,
        metric=own,
    )


def _head_rows(
    checkpoint: Checkpoint,
    read: RunData,
    options: RunOptions,
    order: npt.NDArray[np.int64] | None,
    metric: UserMetric | None,
    progress: Progress,
) -> tuple[TrainingExamples, list[PreparedSplit]]:
    """The training and validation rows for a model with a head."""
    tokenizer = load_tokenizer(checkpoint.path)

    def prepare(examples: Examples) -> PreparedSplit:
        split = PreparedSplit.make(examples, tokenizer, options.max_length, progress, metric=metric)
        check_ids(checkpoint.path, checkpoint.config, split.rows.ids, split.rows.type_ids)
        return split

    training = _training_examples(read.train, prepare(read.train), order)
    if read.unlabelled is not None:
        training = training.and_unlabelled(prepare(read.unlabelled).rows)
    return training, [prepare(each) for each in read.held_out]


def _embedding_rows(
    checkpoint: Checkpoint,
    read: RunData,
    reader: TextReader,
    metric: UserMetric | None,
    progress: Progress,
) -> tuple[EmbeddingExamples, list[EmbeddedSplit]]:
    """The training and validation rows for an embedding model."""
    training = EmbeddingExamples.make(read.train, reader, progress)
    if read.unlabelled is not None:
        more = read_unlabelled_texts(read.unlabelled, reader, progress)
        training = training.and_unlabelled(more)
    similarity = read_similarity(checkpoint.path) if read.task.kind is Kind.RETRIEVAL else "cosine"
    return training, [
        EmbeddedSplit(each, reader.prompts, similarity, metric) for each in read.held_out
    ]


def _training_examples(
    examples: Examples, prepared: PreparedSplit, order: npt.NDArray[np.int64] | None
) -> TrainingExamples:
    labels: npt.NDArray[Any] = examples.labels
    if isinstance(prepared.located, Windows):
        labels = prepared.located.answer
    elif isinstance(prepared.located, WordTokens):
        labels = prepared.located.labels
        if order is not None:
            labels = np.where(labels == UNLABELLED, UNLABELLED, order[np.maximum(labels, 0)])
    elif examples.task.kind is Kind.CLASSIFICATION and order is not None:
        labels = order[examples.labels]
    elif examples.task.kind is Kind.LABEL_SETS and order is not None:
        labels = np.zeros_like(examples.labels)
        labels[:, order] = examples.labels
    return TrainingExamples(examples.task.kind, prepared.rows, labels)
