"""What is to be halved, as recognised from the model's folder and the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from sparsebert.checkpoint import Checkpoint, Head
from sparsebert.checkpoint.embedding_kinds import EmbeddingKind
from sparsebert.checkpoint.sparsity import null_threshold
from sparsebert.errors import DataError, InputError
from sparsebert.evaluation.evaluator import match_labels
from sparsebert.halving.dense_model import (
    ENCODERS,
    about_head,
    about_model,
    gives_labels,
    kinds_of,
    open_dense,
)
from sparsebert.tasks.columns import class_indices
from sparsebert.tasks.custom import SCORE, holds_label_sets
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.division import Division, read_division
from sparsebert.tasks.examples import load_split, read_split, validation_splits
from sparsebert.tasks.files import TAGGED_TYPES, file_type, tables_in, undivided_file
from sparsebert.tasks.ner import holds_tags
from sparsebert.tasks.own import UNREAD, find_task, own_task, unread_task
from sparsebert.tasks.retrieval import holds_documents, is_beir
from sparsebert.tasks.squad import has_unanswerable
from sparsebert.tasks.table import (
    CUSTOM,
    NER,
    PAIRS,
    RETRIEVAL,
    TASKS,
    Kind,
    Task,
    is_own,
)

EMBEDDINGS: dict[EmbeddingKind, str] = {
    "dense": "embeddings",
    "sparse": "sparse embeddings",
    "tokens": "token embeddings",
}
_SEVERAL = (Kind.TOKENS, Kind.LABEL_SETS)
_TEXTS_ALONE = "Only the texts of the data are read, not its labels."
_FLOATS = ("halffloat", "float", "double")  # Arrow's names for types of labels that are numbers


class Goal(str, Enum):
    """What the halved model should do as well as the dense one.

    LABELS are those of each token, or several for a text: learned from texts alone, as embeddings
    are, and scored on the data's labels if it has them.
    """

    TASK = "task"
    EMBEDDING = "embedding"
    LABELS = "labels"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A dense model, and what it is judged by.

    ``taught`` says that the model is its own teacher, because it has a trained head or computes
    embeddings; otherwise the dense model is fine-tuned on ``data`` first. ``labelled`` says that
    ``data`` has labels to score on. An embedding model has a ``task`` only if ``data`` has scored
    pairs, or queries and documents. ``kinds`` are the kinds of its embeddings, beginning with the
    one it is judged by. ``said`` are sentences on what was recognised.

    ``other_classes`` says that the training rows lack some of a classifier's classes, or name them
    by their numbers. ``division`` is how ``data`` was split when the model was trained on it.
    """

    model: str
    checkpoint: Checkpoint = field(repr=False)
    goal: Goal
    task: Task | None
    taught: bool
    labelled: bool
    data: Path | None
    columns: DataOptions
    texts: tuple[Path, ...]
    said: tuple[str, ...]
    kinds: tuple[EmbeddingKind, ...] = ("dense",)
    other_classes: bool = False
    division: Division | None = None

    @property
    def validation_splits(self) -> tuple[str, ...]:
        """The splits of labelled data to score on; none if training rows are to be held out."""
        assert self.task is not None
        assert self.data is not None
        if is_beir(self.data):  # whose documents are not in the rows
            return self.task.validation_splits
        return () if self.data.is_file() else validation_splits(self.task, self.data)

    @property
    def title(self) -> str:
        """The model's name, without the folders above it."""
        return Path(self.model).name


def recognise(
    model: str | Path,
    *,
    data: str | Path | None = None,
    task: str | None = None,
    texts: Sequence[str | Path] = (),
    columns: DataOptions | None = None,
) -> Subject:
    """Look at the model and the data; nothing is computed yet.

    Raises CheckpointError for a model that is damaged, packed or already sparse, DataError for data
    without texts, InputError for a task that does not fit the head.
    """
    checkpoint = open_dense(model)
    columns = columns or DataOptions()
    head = checkpoint.config.head

    def subject(
        goal: Goal,
        task: Task | None,
        columns: DataOptions,
        said: Sequence[str],
        *,
        taught: bool = True,
        **more: Any,
    ) -> Subject:
        return _read(
            Subject(
                model=str(model),
                checkpoint=checkpoint,
                goal=goal,
                task=task,
                taught=taught,
                labelled=task is not None,
                data=None if data is None else Path(data),
                columns=columns,
                texts=tuple(Path(each) for each in texts),
                said=tuple(said),
                **more,
            )
        )

    if gives_labels(checkpoint):
        found, said = _of_labels(checkpoint, data, task, columns)
        return subject(Goal.LABELS, found, columns, said)
    kinds = kinds_of(checkpoint)
    if "dense" not in kinds:
        found, said = _without_dense(checkpoint, kinds, data, task, columns)
        return subject(Goal.EMBEDDING, found, columns, said, kinds=kinds)
    if data is None and task is not None:
        raise _without_data(task)
    found = _labelled_task(checkpoint, data, task, columns) if data is not None else None
    if head in ENCODERS and data is not None and task is None:
        found = _of_embeddings(data, found, checkpoint, columns)
    if found is not None and found.name == CUSTOM and found.kind is Kind.REGRESSION:
        columns = replace(columns, regression=True)  # the data is read as it was recognised
    said = [about_model(checkpoint)]
    if head in ENCODERS and (found is None or found.embeds):
        goal, taught, chosen = Goal.EMBEDDING, True, found
        if checkpoint.pooling is not None:
            checkpoint.pooling.check()  # raises now rather than after pruning
        if found is None:
            said.append("It is judged by how close its embeddings stay to the dense model's.")
        elif found.kind is Kind.PAIRS:
            said.append("It is judged by the cosines of the data's scored pairs.")
        else:
            said.append("It is judged by the documents that it finds for the data's queries.")
    elif head in ENCODERS:
        goal, taught, chosen = Goal.TASK, False, found
        said.append(f"The data is {_about_task(found)}: the dense model is fine-tuned on it first.")
    else:
        goal, taught = Goal.TASK, True
        chosen, notes = _fitting(checkpoint, found, data, columns)
        said += [_own_teacher(chosen), *notes]
    other = bool(found and chosen and set(found.labels) != set(chosen.labels))
    return subject(goal, chosen, columns, said, taught=taught, kinds=kinds, other_classes=other)


def _read(subject: Subject) -> Subject:
    """The subject once its labelled data has been read, with how the model's training split it.

    What is wrong with a row, or with its label, is thus raised before the first step.
    """
    if not subject.labelled:
        return subject
    assert subject.task is not None
    assert subject.data is not None
    for split in ("train", *subject.validation_splits):
        load_split(subject.task, subject.data, split)
    file = undivided_file(subject.data, subject.task.file_types)
    division = read_division(subject.checkpoint.path) if file and subject.taught else None
    if file is None or division is None or not division.is_of(file):
        return subject
    return replace(subject, division=division)


def _without_dense(
    checkpoint: Checkpoint,
    kinds: tuple[EmbeddingKind, ...],
    data: str | Path | None,
    name: str | None,
    columns: DataOptions,
) -> tuple[Task | None, list[str]]:
    """The task of a model of sparse embeddings or token vectors, and sentences on it."""
    if name not in (None, RETRIEVAL):
        raise InputError(
            f"{checkpoint.source} is {about_head(checkpoint)}, which is judged on texts, or on "
            "queries and documents: leave out the task."
        )
    if data is None and name is not None:
        raise _without_data(name)
    task = None
    if data is not None and (name or _has_documents(data, columns)):
        task = find_task(RETRIEVAL, data, options=columns)
    said = [about_model(checkpoint)]
    if task is not None:
        said.append("It is judged by the documents that it finds for the data's queries.")
    else:
        kept = f"how close its {EMBEDDINGS[kinds[0]]} stay to the dense model's"
        said.append(f"It is judged by {kept}.")
        said += [_TEXTS_ALONE] if data is not None else []
    return task, said


def _own_teacher(task: Task | None) -> str:
    """The sentence on a model that learns from its dense original, and on how it is judged."""
    judged = f"scored on {_about_task(task)}" if task else "judged by how far the two agree"
    return f"It is its own teacher, and the halved model is {judged}."


def _of_labels(
    checkpoint: Checkpoint, data: str | Path | None, name: str | None, columns: DataOptions
) -> tuple[Task | None, list[str]]:
    """The task of a model that labels tokens or gives several labels, and sentences on it."""
    if data is None and name is not None:
        raise _without_data(name)
    task = None if data is None else _labels_task(checkpoint, data, name, columns)
    said = [about_model(checkpoint), _own_teacher(task)]
    if data is not None and task is None:
        said.append(_TEXTS_ALONE)
    return task, said


def _labels_task(
    checkpoint: Checkpoint, data: str | Path, name: str | None, columns: DataOptions
) -> Task | None:
    """The task of data with the kind of labels that the model gives; None if it has none.

    Each label must be one of the model's. Raises DataError and InputError.
    """
    tokens = checkpoint.config.head is Head.TOKEN
    if name is None:
        table = read_split(_unread(data), data, "train").table
        if not (holds_tags if tokens else holds_label_sets)(table, columns):
            return None
    elif not is_own(name):
        raise _unfit(checkpoint, find_task(name, data, options=columns))
    chosen = name or (NER if tokens else CUSTOM)
    task = own_task(chosen, data, labels=checkpoint.config.labels, options=columns)
    if task.head is not checkpoint.config.head or task.kind is Kind.CLASSIFICATION:
        raise _unfit(checkpoint, task)
    if len(task.labels) != len(checkpoint.config.labels):
        raise _more_labels(checkpoint, task)
    return task


def _unread(data: str | Path) -> Task:
    """The task to read data with before its columns are known: as a table, or as CoNLL files."""
    path = Path(data)
    if path.is_dir():
        tagged = bool(tables_in(path, TAGGED_TYPES)) and not tables_in(path)
    else:
        tagged = bool(file_type(path, TAGGED_TYPES))
    return unread_task(NER) if tagged else UNREAD


def _labelled_task(
    checkpoint: Checkpoint, data: str | Path, name: str | None, columns: DataOptions
) -> Task | None:
    """The task that the data is for; None if it has texts but no labels. Raises DataError."""
    if name is not None:
        return find_task(name, data, options=columns)
    # Column names that only one task has identify it; any other data is a custom task.
    table = read_split(_unread(data), data, "train").table
    if holds_tags(table, columns):
        return own_task(NER, data, options=columns)
    named = set(table.column_names)
    if columns.text_columns is None and columns.label_column is None:
        for task in TASKS.values():
            if set(task.columns) <= named and not _is_common(task):
                if task.kind is Kind.QUESTION and (
                    null_threshold(checkpoint.config.sparsity) is not None
                    or has_unanswerable(table, task.label_column)
                ):
                    task = TASKS["squad_v2"]
                return find_task(task.name, data, options=columns)
    if holds_label_sets(table, columns):
        return own_task(CUSTOM, data, options=columns)
    label = columns.label_column or next((name for name in ("label", SCORE) if name in named), None)
    if label is None:
        return None
    if label in named and str(table.schema.field(label).type) in _FLOATS:
        columns = replace(columns, regression=True)
    return own_task(CUSTOM, data, options=columns)


def _is_common(task: Task) -> bool:
    """Whether the columns are too common to identify the task: one or two sentences and a label."""
    return set(task.text_columns) <= {"sentence", "sentence1", "sentence2"}


def _of_embeddings(
    data: str | Path, found: Task | None, checkpoint: Checkpoint, columns: DataOptions
) -> Task | None:
    """What an encoder's data is for, if no task was named.

    Embeddings are judged by scored pairs, and those of an embedding model also by queries and
    documents, which are recognised by their columns.
    """
    if found is not None and found.kind is Kind.REGRESSION and len(found.text_columns) == 2:
        return find_task(PAIRS, data, options=replace(columns, regression=False))
    if found is None and checkpoint.pooling is not None and _has_documents(data, columns):
        return find_task(RETRIEVAL, data, options=columns)
    return found


def _has_documents(data: str | Path, columns: DataOptions) -> bool:
    """Whether its columns are those of queries and documents."""
    return holds_documents(read_split(_unread(data), data, "train").table, columns)


def _fitting(
    checkpoint: Checkpoint, task: Task | None, data: str | Path | None, columns: DataOptions
) -> tuple[Task | None, list[str]]:
    """The task with the model's own classes, if it fits the head, and notes.

    Raises CheckpointError, DataError and InputError.
    """
    if task is None:
        return None, []
    if task.head is not checkpoint.config.head or task.kind is Kind.LABEL_SETS:
        raise _unfit(checkpoint, task)
    count = len(checkpoint.config.labels)
    if task.kind is Kind.REGRESSION and count != 1:
        raise InputError(
            f"{checkpoint.source} has {count} labels, but the data's label is a number: name the "
            "column of the classes (--label-column)."
        )
    if task.kind is Kind.CLASSIFICATION and count == 1:
        raise InputError(
            f"{checkpoint.source} predicts one number, but the data's labels are "
            f"{', '.join(task.labels[:5])}: pass --regression if these are numbers."
        )
    if task.kind is Kind.CLASSIFICATION and len(task.labels) > count:
        raise _more_labels(checkpoint, task)
    if task.name == CUSTOM and task.kind is Kind.CLASSIFICATION:
        named = task.labels
        task = own_task(CUSTOM, data, labels=checkpoint.config.labels, options=columns)
        unknown = [
            name for name, index in zip(named, class_indices(named, task), strict=True) if index < 0
        ]
        if unknown:
            raise DataError(
                f"the labels {', '.join(unknown[:8])} of the data are not among those of "
                f"{checkpoint.source} ({', '.join(checkpoint.config.labels[:8])}): use the same "
                "names in both (id2label in the model's config.json), or pass the data as --texts "
                "(texts=), whose labels are not read."
            )
    return task, match_labels(task, checkpoint.config, checkpoint.source)[1]


def _more_labels(checkpoint: Checkpoint, task: Task) -> DataError:
    labels = checkpoint.config.labels
    return DataError(
        f"the data has {len(task.labels)} labels ({', '.join(task.labels[:8])}), but the head of "
        f"{checkpoint.source} has {len(labels)} ({', '.join(labels[:8])})."
    )


def _unfit(checkpoint: Checkpoint, task: Task) -> InputError:
    return InputError(
        f"{checkpoint.source} is {about_head(checkpoint)}, which does not fit "
        f"{_about_task(task)}: use other data, or name the task."
    )


def _without_data(task: str) -> InputError:
    return InputError(f"the task {task} says how to read data, but no data was given: add --data.")


def _about_task(task: Task | None) -> str:
    assert task is not None
    if task.name not in (CUSTOM, NER):
        return task.title
    kind = f"{len(task.labels)} {'labels' if task.kind in _SEVERAL else 'classes'} of"
    if task.kind is Kind.REGRESSION:
        kind = "a regression on"
    return f"{kind} {' and '.join(task.text_columns)}"
