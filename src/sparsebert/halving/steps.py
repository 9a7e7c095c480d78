"""The steps of a halving: each is a separate function, with the command that calls it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparsebert.checkpoint import Head
from sparsebert.checkpoint.sparsity import null_threshold
from sparsebert.halving.effort import Plan
from sparsebert.halving.subject import Goal, Subject
from sparsebert.packing import pack
from sparsebert.progress import Progress
from sparsebert.pruning import prune
from sparsebert.pruning.methods import CALIBRATION_ROWS
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.table import CUSTOM, Kind

LENGTH = 128  # tokens: an embedding model learns from the beginning of longer texts


@dataclass(frozen=True)
class Step:
    """A step that makes the folder ``out``, whole once it exists. ``command`` does it by hand."""

    title: str
    out: Path
    command: str
    run: Callable[[Progress], Any]

    @property
    def done(self) -> bool:
        """Whether an earlier run made the folder."""
        return (self.out / "config.json").is_file()


@dataclass(frozen=True)
class Folders:
    """Where a halving works, and what it reads there."""

    work: Path
    texts: Path
    data: Path
    """Data for `finetune`: the user's own, or texts with the model's answers."""

    @property
    def dense(self) -> Path:
        """The dense model, fine-tuned first."""
        return self.work / "dense"

    @property
    def pruned(self) -> Path:
        """Pruned by second order, not distilled."""
        return self.work / "pruned"

    def student(self, number: int) -> Path:
        """The model after a round of distillation, counted from 1; 0 is the pruned one."""
        return self.work / f"student-{number}" if number else self.pruned

    def packed(self, number: int) -> Path:
        """The same, packed to int8."""
        return self.work / f"packed-{number}"


def task_name(subject: Subject) -> str:
    """What `finetune` and `evaluate` call the task of the subject's data."""
    if subject.task is not None:
        return subject.task.name
    if subject.checkpoint.config.head is not Head.QUESTION:
        return CUSTOM
    return "squad" if null_threshold(subject.checkpoint.config.sparsity) is None else "squad_v2"


def data_options(subject: Subject) -> DataOptions:
    """How `finetune` and `evaluate` read the data: the user's, or texts with the model's answers.

    A model that says when there is no answer continues to do so, by its own threshold.
    """
    options = subject.columns if subject.labelled else DataOptions()
    if task_name(subject) != "squad_v2" or options.threshold is not None:
        return options
    threshold = subject.columns.threshold
    if threshold is None:
        threshold = null_threshold(subject.checkpoint.config.sparsity)
    return replace(options, threshold=threshold)


def teacher_of(subject: Subject, folders: Folders) -> str:
    """The dense model that is halved: as given, or as fine-tuned on the task first."""
    return subject.model if subject.taught else str(folders.dense)


def dense_step(subject: Subject, folders: Folders, seed: int) -> Step:
    """Fine-tune the dense model on labelled data."""
    columns = data_options(subject).given()
    arguments = {"task": task_name(subject), "data": folders.data, **columns}

    def run(progress: Progress) -> Any:
        from sparsebert.training import finetune

        return finetune(
            subject.model, folders.dense, seed=seed, resume=True, progress=progress, **arguments
        )

    command = _command("finetune", subject.model, folders.dense, seed=seed, **arguments)
    return Step("fine-tune the dense model", folders.dense, command, run)


def prune_step(subject: Subject, folders: Folders, shared_rows: int) -> Step:
    """Prune by second order, on the texts."""
    model = teacher_of(subject, folders)
    arguments: dict[str, Any] = {
        "method": "second-order",
        "calibration": folders.texts,
        "calibration_rows": CALIBRATION_ROWS,
    }
    if shared_rows > 1:
        arguments["shared_rows"] = shared_rows
    if subject.goal is Goal.TASK and is_question(subject):
        arguments["task"] = "squad"

    def run(progress: Progress) -> Any:
        return prune(model, folders.pruned, progress=progress, **arguments)

    command = _command("prune", model, folders.pruned, **arguments)
    return Step("prune by second order", folders.pruned, command, run)


def distil_step(subject: Subject, folders: Folders, plan: Plan, number: int, seed: int) -> Step:
    """One round of distillation, with every pruned weight locked at zero."""
    if subject.goal is not Goal.TASK:
        return _upstream_step(subject, folders, plan, number, seed)
    source, out = folders.student(number - 1), folders.student(number)
    arguments: dict[str, Any] = {
        "task": task_name(subject),
        "data": folders.data,
        "teacher": teacher_of(subject, folders),
        "recipe": "best",
        "epochs": plan.epochs,
        **data_options(subject).given(),
    }
    if plan.max_rows is not None:
        arguments["max_rows"] = plan.max_rows
    if number > 1:  # little is left to learn
        arguments["learning_rate"] = 5e-5

    def run(progress: Progress) -> Any:
        from sparsebert.training import finetune

        return finetune(source, out, seed=seed, resume=True, progress=progress, **arguments)

    command = _command("finetune", source, out, seed=seed, **arguments)
    return Step(_round("distil", number), out, command, run)


def _upstream_step(subject: Subject, folders: Folders, plan: Plan, number: int, seed: int) -> Step:
    """Learn from the dense model on texts alone: its hidden states, embeddings and logits."""
    source, out = folders.student(number - 1), folders.student(number)
    arguments: dict[str, Any] = {
        "corpus": folders.texts,
        "teacher": subject.model,
        "epochs": plan.epochs,
        "embeddings": "frozen",
        "max_length": min(LENGTH, subject.checkpoint.config.max_length),
    }
    if subject.kinds[0] == "sparse":
        # SPLADE reads texts without masks and uses the logits themselves. These terms only keep
        # their distribution, which is the same if all logits shift. The head stays unchanged.
        arguments |= {"masked_lm_weight": 0.0, "token_logits_weight": 0.0}
    if plan.max_rows is not None:
        arguments["max_rows"] = plan.max_rows
    if number > 1:  # little is left to learn
        arguments["learning_rate"] = 2e-4

    def run(progress: Progress) -> Any:
        from sparsebert.training import prune_upstream

        return prune_upstream(source, out, seed=seed, resume=True, progress=progress, **arguments)

    command = _command("prune", source, out, seed=seed, **arguments)
    return Step(_round("distil", number), out, command, run)


def pack_step(folders: Folders, number: int) -> Step:
    """Pack to int8."""
    source, out = folders.student(number), folders.packed(number)

    def run(progress: Progress) -> Any:
        return pack(source, out, dtype="int8", progress=progress)

    return Step("pack to int8", out, _command("pack", source, out, dtype="int8"), run)


def _round(title: str, number: int) -> str:
    return title if number == 1 else f"{title}, round {number}"


def is_question(subject: Subject) -> bool:
    """Whether it is a question-answering model, or becomes one."""
    return subject.checkpoint.config.head is Head.QUESTION or (
        subject.task is not None and subject.task.kind is Kind.QUESTION
    )


def _command(verb: str, model: object, out: object, **options: Any) -> str:
    words = ["sparsebert", verb, str(model), str(out)]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        else:
            words += [flag, f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)
