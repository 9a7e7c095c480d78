"""What a run is trained and scored on: the task and its examples, read and checked.

Besides the task's own examples there may be unlabelled texts, which only a teacher can label. A
teacher fine-tuned on a few thousand rows has memorised them, so its outputs there say little about
how it answers other texts. More texts of the same kind show that (like the data augmentation of
TinyBERT, arXiv 1909.10351, but with real texts instead of generated ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparsebert.errors import DataError, TrainingError
from sparsebert.evaluation.scoring import f1_note
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.division import SPLIT_NAME, Division, divide, file_sha256
from sparsebert.tasks.examples import Examples, load_split, selection, validation_splits
from sparsebert.tasks.files import split_files, undivided_file
from sparsebert.tasks.labels import label_notes
from sparsebert.tasks.own import find_task
from sparsebert.tasks.pairs import as_cosines
from sparsebert.tasks.retrieval import is_beir
from sparsebert.tasks.table import RETRIEVAL, Kind, Task, is_own
from sparsebert.tasks.texts import Text, read_texts, single_texts, texts_of
from sparsebert.tasks.tokens import TokenRows
from sparsebert.tasks.word_tokens import UNLABELLED
from sparsebert.torch_models import padded_batch
from sparsebert.training.options import FinetuneOptions

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RunData:
    """The data of a run. ``unlabelled`` are texts that only a teacher answers, if there are any.

    ``division`` says which examples were held out of a single data file; ``files`` maps the names
    of files whose rows are all for training to their SHA-256; ``notes`` are about the data.
    """

    task: Task
    train: Examples
    held_out: list[Examples]
    unlabelled: Examples | None
    division: Division | None
    files: dict[str, str]
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows in an epoch."""
        return len(self.train) + (len(self.unlabelled) if self.unlabelled is not None else 0)


@dataclass(frozen=True)
class TrainingExamples:
    """Tokens and labels to train on.

    ``labels`` is int64 ``[examples]`` for classification, float32 ``[examples, labels]`` (zeros and
    ones) for several labels per row, float32 ``[examples]`` for regression, int64 ``[examples, 2]``
    (first and last token of the answer) for question answering, and int64 ``[tokens]``, all
    examples concatenated, for token classification.
    """

    kind: Kind
    tokens: TokenRows
    labels: npt.NDArray[Any]

    apart = None  # any examples may share a step

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each example, int64 ``[examples]``."""
        return self.tokens.lengths

    def and_unlabelled(self, tokens: TokenRows) -> TrainingExamples:
        """These examples followed by ``tokens``, with placeholder labels that no loss reads."""
        if self.kind is Kind.TOKENS:
            labels = np.full(len(tokens.ids), UNLABELLED, self.labels.dtype)
        else:
            labels = np.zeros((len(tokens), *self.labels.shape[1:]), self.labels.dtype)
        return replace(
            self, tokens=self.tokens.and_rows(tokens), labels=np.concatenate([self.labels, labels])
        )

    def batch(self, chosen: Sequence[int]) -> dict[str, torch.Tensor]:
        """A padded batch of the ``chosen`` examples for an `Objective`: the data collator."""
        import torch

        indices = np.asarray(chosen, np.int64)
        return {
            **padded_batch(self.tokens, indices),
            "labels": torch.from_numpy(self._labels(indices)),
            "indices": torch.from_numpy(indices),
        }

    def _labels(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Labels of some examples; labels of tokens are padded like the tokens."""
        if self.kind is not Kind.TOKENS:
            return self.labels[indices]
        offsets, lengths = self.tokens.offsets, self.tokens.lengths[indices]
        padded = np.full((len(indices), lengths.max()), UNLABELLED, self.labels.dtype)
        for row, index in enumerate(indices):
            padded[row, : lengths[row]] = self.labels[offsets[index] : offsets[index + 1]]
        return padded

    def set_epoch(self, epoch: int) -> None:
        """Does nothing: batches do not depend on the epoch."""


def read_run_data(
    task_name: str, data: str | Path | None, options: FinetuneOptions, columns: DataOptions
) -> RunData:
    """Read the training examples and the validation splits; raises DataError or TrainingError."""
    task = find_task(task_name, data, options=columns)
    if "validation_share" in columns.given() and undivided_file(data, task.file_types) is None:
        raise DataError(
            "validation_share only applies to a single data file that is not named after a split: "
            f"{task.hub_id if data is None else data} already has splits, so leave it out."
        )
    train, held_out, division = _read(task, data, options.max_rows, columns.validation_share)
    if options.scale is not None and task.kind is not Kind.RETRIEVAL:
        raise TrainingError(f"scale only applies to the task {RETRIEVAL}: leave it out.")
    if options.early_stopping and not held_out:
        raise DataError(
            f"early stopping needs a validation split, and {data} has none: use a folder with "
            f"train and {task.validation_splits[0]} files."
        )
    notes = _notes(task, [train, *held_out], division)
    if not held_out and columns.validation_share:
        notes.append(
            "the data has no validation split, so nothing was held out for scoring; a single file "
            "is divided unless it is named after a split."
        )
    files = {}
    if data is not None and division is None and not is_beir(Path(data)):
        paths = split_files(Path(data), "train", task.file_types)
        files = {path.name: file_sha256(path) for path in paths}
    unlabelled = None
    if options.unlabelled is not None:
        unlabelled = read_unlabelled(options, task, held_out)
        notes += unlabelled.notes
    return RunData(task, train, held_out, unlabelled, division, files, notes)


def _read(
    task: Task, data: str | Path | None, max_rows: int | None, share: float
) -> tuple[Examples, list[Examples], Division | None]:
    """The training examples, each validation split, and how a single file was divided."""
    file = undivided_file(data, task.file_types)
    if file is None or not share:
        # A single file that is named after a split is used for training only.
        alone = file is not None or (data is not None and Path(data).is_file())
        splits = () if alone else validation_splits(task, data)
        train = load_split(task, data, "train", max_rows=max_rows)
        return train, [load_split(task, data, split) for split in splits], None
    whole = load_split(task, file, "train")
    division = divide(whole, file, share)
    train, held = division.parts(whole, task.validation_splits[0])
    return train.selected(max_rows), [held], division


def _notes(task: Task, read: list[Examples], division: Division | None) -> list[str]:
    """Notes on the data."""
    notes = [note for examples in read for note in examples.notes]
    if task.kind is Kind.PAIRS:
        _, note = as_cosines(np.asarray(read[0].labels, np.float32))
        notes += [note] if note else []
    if is_own(task.name):
        notes += label_notes(task)
    if division is not None:
        notes.append(
            f"{division.file} has no splits: {len(division.validation):,} of its "
            f"{division.rows:,} rows were held out for scoring; {SPLIT_NAME} lists them."
        )
    return [*dict.fromkeys(notes), *(f1_note(task) if len(read) > 1 else [])]


def read_unlabelled(
    options: FinetuneOptions, task: Task, held_out: Sequence[Examples] = ()
) -> Examples:
    """The texts that the options name, as examples of the task without labels.

    Tasks on pairs need pairs; for tasks on single texts, and for embedding models, the two halves
    of a pair are separate texts. A table may have this task's columns, or those of any known one.
    Texts of the rows used for scoring are left out, because the student would learn the teacher's
    answers there. Raises DataError for question answering, for single texts where pairs are needed,
    and for texts that cannot be read.
    """
    source = str(options.unlabelled)
    if task.kind is Kind.QUESTION:
        raise DataError(f"{task.name} cannot use unlabelled texts, because they have no questions.")
    texts: Sequence[Text] = read_texts(source, first=task.text_columns)
    if len(task.text_columns) == 1 or task.embeds:
        texts = single_texts(texts)
    elif any(isinstance(row, str) for row in texts):
        raise DataError(
            f"{source} holds single texts, but {task.name} reads pairs: use a table with two text "
            "columns."
        )
    chosen = selection(len(texts), options.unlabelled_rows)
    if chosen is not None:
        texts = [texts[row] for row in chosen]
    scored = {text for each in held_out for text in texts_of(each)}
    kept = [text for text in texts if text not in scored]
    if not kept:
        raise DataError(
            f"every text in {source} is among the rows used for scoring: use other texts."
        )
    left_out = len(texts) - len(kept)
    note = f"{left_out:,} of the unlabelled texts are among the rows used for scoring: left out."
    texts = kept
    first = [row if isinstance(row, str) else row[0] for row in texts]
    second = [row[1] for row in texts if not isinstance(row, str)]
    none = np.zeros(0, np.int64)
    return Examples(
        task,
        "unlabelled",
        source,
        first,
        second or None,
        none,
        ids=[],
        notes=(note,) * bool(left_out),
    )
