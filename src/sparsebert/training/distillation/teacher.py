"""The teacher of a distillation: loading it, and checking it against the task and the student.

A teacher is any dense or sparse folder (or hub id) with the student's vocabulary. With the task's
head, it teaches as it is. An encoder is fine-tuned on the task first
(`sparsebert.training.finetuning`), with the student's own options, and kept as ``OUT.teacher``
beside OUT, where a resumed or repeated run finds it. In a folder of seeds, the teacher for seed N
is ``seed-N``.

A student's new head starts as a copy of the teacher's. Because the student's hidden states approach
the teacher's, that head is nearly right from the first step, whereas a random one would have to be
learned from the task's few examples.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from sparsebert.checkpoint import Checkpoint, open_checkpoint, read_prompts, resolve_model
from sparsebert.checkpoint.config import CONFIG_NAME, Head
from sparsebert.checkpoint.families import HeadShape
from sparsebert.checkpoint.model_settings import MODEL_SETTINGS_NAME
from sparsebert.checkpoint.pooling import Pooling
from sparsebert.checkpoint.seeds import seed_folders
from sparsebert.checkpoint.tokenizer import unknown_ids
from sparsebert.errors import CheckpointError, TrainingError
from sparsebert.evaluation.torch_embedding import TorchPooler
from sparsebert.progress import Progress
from sparsebert.tasks.table import Kind, Task
from sparsebert.tasks.tokens import TokenRows, load_tokenizer
from sparsebert.torch_models import canonical_parameters
from sparsebert.training.cpu import autocast, device_type, resolve_precision
from sparsebert.training.distillation.outputs import (
    Pooled,
    TeacherOutputs,
    cached_outputs,
    compute_outputs,
    outputs_key,
)
from sparsebert.training.distributed import main_first
from sparsebert.training.embedding.examples import EmbeddingExamples
from sparsebert.training.options import FinetuneOptions
from sparsebert.training.task_model import build_model, head_order, keeps_head, task_config
from sparsebert.training.trainer import TrainingSet

_UNTAUGHT = (Head.ENCODER, Head.MASKED_LM)  # models that were not fine-tuned on any task


@dataclass(frozen=True)
class Teacher:
    """A model that teaches, or will do so once it is fine-tuned on the task.

    ``columns`` has, for each of the student's logits, the matching one of the teacher's (int64
    ``[labels]``), or is None if the task has no labels. ``outputs`` are added by `with_outputs`, in
    the student's order.
    """

    checkpoint: Checkpoint
    task: Task
    columns: npt.NDArray[np.int64] | None = field(repr=False)
    outputs: TeacherOutputs | None = field(default=None, repr=False)
    notes: list[str] = field(default_factory=list)

    def model(self) -> PreTrainedModel:
        """Load the teacher, in fp32 and without dropout."""
        config = task_config(self.checkpoint, self.task)
        return build_model(self.checkpoint, config, keep_head=True, dropout=0.0, seed=0).eval()


def find_teacher(
    options: FinetuneOptions,
    student: Checkpoint,
    task: Task,
    tokens: TokenRows,
    student_order: npt.NDArray[np.int64] | None,
) -> Teacher:
    """The teacher named in the options, checked against task, student and training examples.

    ``student_order`` is the position of each of the task's labels in the student's head. Raises
    CheckpointError if it is not a model or has the head of another task, and TrainingError if its
    vocabulary, size or seed does not fit.
    """
    assert options.teacher is not None
    checkpoint = _open(options.teacher, options.seed)
    _check(checkpoint, student, task, tokens, options.hidden_weight)
    if task.embeds:
        _check_embedding(checkpoint, student, options.logits_weight)
    return Teacher(checkpoint, task, _columns(checkpoint, task, student_order))


def with_outputs(
    teacher: Teacher,
    examples: TrainingSet,
    kind: Kind,
    *,
    precision: str,
    batch_size: int,
    progress: Progress,
) -> Teacher:
    """The teacher with its outputs on the training examples, in the order of the student's labels.

    ``precision`` is the value of the option. Raises TrainingError if the outputs are not finite.
    """
    number_type = resolve_precision(precision)
    tokens, pooled, pooling = examples.tokens, None, b""
    if isinstance(examples, EmbeddingExamples):
        own = teacher.checkpoint.pooling or Pooling()
        pooled = _pooled(own, examples)
        pooling = _pooling_key(own, examples)

    def compute() -> TeacherOutputs:
        with autocast(number_type):
            return compute_outputs(
                teacher.model().to(device_type()),
                tokens,
                kind,
                batch_size=batch_size,
                progress=progress,
                pooled=pooled,
            )

    key = outputs_key(teacher.checkpoint, tokens, number_type, pooling)
    # The main process computes them, and the others read them from the cache if they share one.
    with main_first():
        outputs = cached_outputs(key, kind, tokens, compute)
    if teacher.columns is not None:
        outputs = outputs.with_columns(teacher.columns)
    return replace(teacher, outputs=outputs)


def _pooled(pooling: Pooling, examples: EmbeddingExamples) -> Pooled:
    pooler = TorchPooler(pooling)

    def pooled(
        hidden: torch.Tensor, mask: torch.Tensor, chunk: npt.NDArray[np.int64]
    ) -> torch.Tensor:
        prompts = torch.from_numpy(examples.read.prompt_tokens[chunk]).to(hidden.device)
        return pooler(hidden, mask, prompts)

    return pooled


def _pooling_key(pooling: Pooling, examples: EmbeddingExamples) -> bytes:
    said = [pooling.modes, pooling.normalize, pooling.include_prompt]
    said += [(each.kind, each.activation, each.outputs, each.residual) for each in pooling.layers]
    weights = [array.tobytes() for each in pooling.layers for array in each.weights().values()]
    return b" ".join([repr(said).encode(), *weights, examples.read.prompt_tokens.tobytes()])


def _open(teacher: str, seed: int) -> Checkpoint:
    """The teacher's checkpoint; for a folder of seeds, the one of ``seed``."""
    folder = resolve_model(teacher)
    seeds = seed_folders(folder)
    if (folder / CONFIG_NAME).is_file() or not seeds:
        return open_checkpoint(teacher)
    if seed not in seeds:
        raise TrainingError(
            f"the teacher {teacher} has the seeds {', '.join(map(str, seeds))}, but this run has "
            f"seed {seed}: train that seed, or pass one of its folders as the teacher."
        )
    return open_checkpoint(seeds[seed])


def _check(
    teacher: Checkpoint, student: Checkpoint, task: Task, tokens: TokenRows, hidden_weight: float
) -> None:
    if not (keeps_head(teacher, task) or teacher.config.head in _UNTAUGHT):
        labels = ", ".join(teacher.config.labels)
        raise CheckpointError(
            f"the teacher {teacher.path} was fine-tuned on another task (its head is "
            f"{teacher.config.head.value}{f', its labels are {labels}' if labels else ''}), but "
            f"{task.name} needs {_asked(task)}: fine-tune it on the task first."
        )
    vocabulary = load_tokenizer(student.path).get_vocab()
    if load_tokenizer(teacher.path).get_vocab() != vocabulary:
        raise TrainingError(
            f"the teacher {teacher.path} has a different vocabulary from {student.path}, so token "
            "ids would mean other words to it: use a teacher with the same tokenizer."
        )
    longest, positions = int(tokens.lengths.max()), teacher.config.max_length
    if longest > positions:
        raise TrainingError(
            f"the training rows have up to {longest} tokens, but the teacher {teacher.path} only "
            f"has {positions} positions: set max_length to at most {positions}."
        )
    for what, most, have in unknown_ids(teacher.config, tokens.ids, tokens.type_ids):
        raise TrainingError(
            f"the training rows use {what} {most}, but the teacher {teacher.path} only knows "
            f"{have}: use another teacher."
        )
    student_size, teacher_size = student.config.hidden_size, teacher.config.hidden_size
    if hidden_weight > 0 and student_size != teacher_size:
        raise TrainingError(
            f"hidden states of {teacher.path} are {teacher_size} wide and those of {student.path} "
            f"{student_size}, so they cannot be compared. Leave hidden_weight at 0; "
            "attention_weight works with models of any size."
        )


def _check_embedding(teacher: Checkpoint, student: Checkpoint, logits_weight: float) -> None:
    """TrainingError if the embeddings cannot be compared, or the folders' prompts differ."""
    if teacher.pooling is None:  # it will be fine-tuned first
        return
    student_width, teacher_width = (
        (each.pooling or Pooling()).width(each.config.hidden_size) for each in (student, teacher)
    )
    if logits_weight > 0 and student_width != teacher_width:
        raise TrainingError(
            f"embeddings of {teacher.path} are {teacher_width} wide and those of {student.path} "
            f"{student_width}, so they cannot be compared. Set logits_weight to 0; "
            "attention_weight works with models of any size."
        )
    said = [
        (prompts.default, prompts.query, prompts.document)
        for prompts in (read_prompts(each.path) for each in (teacher, student))
    ]
    if said[0] != said[1]:
        raise TrainingError(
            f"the teacher {teacher.path} puts other prompts before texts than {student.path}: "
            f"use the same {MODEL_SETTINGS_NAME} in both folders."
        )


def _columns(
    teacher: Checkpoint, task: Task, student_order: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.int64] | None:
    """`Teacher.columns`; the labels of both heads are matched through those of the task."""
    if student_order is None:
        return None
    columns = np.empty_like(student_order)
    columns[student_order] = head_order(teacher, task)
    return columns


def _asked(task: Task) -> str:
    if task.kind.named:
        return ", ".join(task.labels)
    if task.embeds:
        return "embeddings"
    return "a number" if task.kind is Kind.REGRESSION else "a span"


@torch.no_grad()
def copy_head(teacher: Teacher, student: PreTrainedModel, shape: HeadShape | None) -> None:
    """Copy the teacher's head into ``student``, with the labels in the student's order.

    ``shape`` is the student's head. If the teacher's head has another shape or width, nothing
    happens.
    """
    checkpoint = teacher.checkpoint
    same_width = checkpoint.config.hidden_size == student.config.hidden_size
    if shape is None or shape != checkpoint.config.head_shape or not same_width:
        return
    labelled = (f"{shape.last}.weight", shape.last_bias)  # a row for each label
    layers = [layer for layer in (shape.dense, shape.norm) if layer]
    names = [f"{layer}.{end}" for layer in layers for end in ("weight", "bias")]
    parameters = canonical_parameters(student)
    for name in (*names, *labelled):
        if name in parameters and name in checkpoint.stored_name:
            weight = checkpoint.finite_weight(name)
            if name in labelled and teacher.columns is not None:
                weight = weight[teacher.columns]
            parameters[name].copy_(torch.tensor(weight))
