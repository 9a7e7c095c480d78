"""What a run is trained and scored on: the task and its examples, read and checked.

Besides the task's own there may be unlabelled texts, to which only a teacher has an answer. A
teacher fine-tuned on a few thousand rows gives on these what their labels say, and they tell a
student little about what it gives otherwise. On more texts of the same kind it shows (the
augmentation of TinyBERT, arXiv 1909.10351, with texts that exist instead of made ones).
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
from sparsebert.tasks.division import SPLIT_NAME, Division, divide
from sparsebert.tasks.examples import Examples, load_split, selection, validation_splits
from sparsebert.tasks.files import undivided_file
from sparsebert.tasks.labels import label_notes
from sparsebert.tasks.own import find_task
from sparsebert.tasks.pairs import as_cosines
from sparsebert.tasks.table import RETRIEVAL, Kind, Task, is_own
from sparsebert.tasks.texts import Text, read_texts, single_texts
from sparsebert.tasks.tokens import TokenRows
from sparsebert.tasks.word_tokens import UNLABELLED
from sparsebert.torch_models import padded_batch
from sparsebert.training.options import FinetuneOptions

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RunData:
    """``unlabelled`` are the texts that only a teacher answers, None without.

    ``division`` says which examples were held out of data in one file; ``notes`` are on the data.
    """

    task: Task
    train: Examples
    held_out: list[Examples]
    unlabelled: Examples | None
    division: Division | None
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows of an epoch."""
        return len(self.train) + (len(self.unlabelled) if self.unlabelled is not None else 0)


@dataclass(frozen=True)
class TrainingExamples:
    """Tokens and labels to train on.

    ``labels`` is int64 ``[examples]``, float32 ``[examples, labels]`` (zeros and ones) for several
    labels a row, float32 ``[examples]`` for a regression, int64
    ``[examples, 2]`` (first and last token of the answer) for question answering, and int64
    ``[tokens]``, of all examples end to end, for token classification.
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
        """These and then ``tokens``, whose labels no loss reads."""
        if self.kind is Kind.TOKENS:
            labels = np.full(len(tokens.ids), UNLABELLED, self.labels.dtype)
        else:
            labels = np.zeros((len(tokens), *self.labels.shape[1:]), self.labels.dtype)
        return replace(
            self, tokens=self.tokens.and_rows(tokens), labels=np.concatenate([self.labels, labels])
        )

    def batch(self, chosen: Sequence[int]) -> dict[str, torch.Tensor]:
        """A padded batch of some examples, as an `Objective` takes it: the data collator."""
        import torch

        indices = np.asarray(chosen, np.int64)
        return {
            **padded_batch(self.tokens, indices),
            "labels": torch.from_numpy(self._labels(indices)),
            "indices": torch.from_numpy(indices),
        }

    def _labels(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Labels of some examples, padded like their tokens where each token has its own."""
        if self.kind is not Kind.TOKENS:
            return self.labels[indices]
        offsets, lengths = self.tokens.offsets, self.tokens.lengths[indices]
        padded = np.full((len(indices), lengths.max()), UNLABELLED, self.labels.dtype)
        for row, index in enumerate(indices):
            padded[row, : lengths[row]] = self.labels[offsets[index] : offsets[index + 1]]
        return padded

    def set_epoch(self, epoch: int) -> None:
        """Nothing: the batches of every epoch are the same."""


def read_run_data(
    task_name: str, data: str | Path | None, options: FinetuneOptions, columns: DataOptions
) -> RunData:
    """Read the training examples of the options and the validation splits; raises DataError."""
    task = find_task(task_name, data, options=columns)
    if "validation_share" in columns.given() and undivided_file(data, task.file_types) is None:
        raise DataError(
            "validation_share is for data in one file that is named after no split: "
            f"{task.hub_id if data is None else data} comes in splits, so leave it out."
        )
    train, held_out, division = _read(task, data, options.max_rows, columns.validation_share)
    if options.scale is not None and task.kind is not Kind.RETRIEVAL:
        raise TrainingError(f"scale is for the task {RETRIEVAL}: leave it out.")
    if options.early_stopping and not held_out:
        raise DataError(
            f"early stopping needs a validation split, and {data} has none: give a folder with "
            f"train and {task.validation_splits[0]} files."
        )
    notes = _notes(task, [train, *held_out], division)
    unlabelled = None
    if options.unlabelled is not None:
        unlabelled = read_unlabelled(options, task, held_out)
        notes += unlabelled.notes
    return RunData(task, train, held_out, unlabelled, division, notes)


def _read(
    task: Task, data: str | Path | None, max_rows: int | None, share: float
) -> tuple[Examples, list[Examples], Division | None]:
    """Training examples, each validation split, and how data in one file was divided."""
    file = undivided_file(data, task.file_types)
    if file is None or not share:
        # A file that is named after a split is all training data.
        alone = file is not None or (data is not None and Path(data).is_file())
        splits = () if alone else validation_splits(task, data)
        train = load_split(task, data, "train", max_rows=max_rows)
        return train, [load_split(task, data, split) for split in splits], None
    whole = load_split(task, file, "train")
    division = divide(whole, file, share)
    train, held = division.parts(whole, task.validation_splits[0])
    return train.selected(max_rows), [held], division


def _notes(task: Task, read: list[Examples], division: Division | None) -> list[str]:
    """What is to be said of the data."""
    notes = [note for examples in read for note in examples.notes]
    if task.kind is Kind.PAIRS:
        _, note = as_cosines(np.asarray(read[0].labels, np.float32))
        notes += [note] if note else []
    if is_own(task.name):
        notes += label_notes(task)
    if division is not None:
        notes.append(
            f"{division.file} has no splits: {len(division.validation):,} of its "
            f"{division.rows:,} rows were held out to score on, which {SPLIT_NAME} lists."
        )
    return [*dict.fromkeys(notes), *(f1_note(task) if len(read) > 1 else [])]


def read_unlabelled(
    options: FinetuneOptions, task: Task, held_out: Sequence[Examples] = ()
) -> Examples:
    """The texts that the options name, as examples of the task without labels.

    A task of pairs takes pairs; one of single texts, and an embedding model, takes both halves of a
    pair. A table has the columns of any known task, or this one's. Texts of the rows that are
    scored on are left out: a student would learn there what the teacher answers. Raises DataError
    for a task of spans, for single texts where pairs are needed, and for what cannot be read.
    """
    source = str(options.unlabelled)
    if task.kind is Kind.QUESTION:
        raise DataError(f"{task.name} takes no unlabelled texts: they have no question.")
    texts: Sequence[Text] = read_texts(source, also=task.text_columns)
    if len(task.text_columns) == 1 or task.embeds:
        texts = single_texts(texts)
    elif any(isinstance(row, str) for row in texts):
        raise DataError(
            f"{source} holds single texts and {task.name} reads pairs: give a table with two text "
            "columns."
        )
    chosen = selection(len(texts), options.unlabelled_rows)
    if chosen is not None:
        texts = [texts[row] for row in chosen]
    scored = {text for each in held_out for text in _texts(each)}
    kept = [text for text in texts if text not in scored]
    if not kept:
        raise DataError(
            f"{source} has no text that is not one of the rows to score on: give others."
        )
    left_out = len(texts) - len(kept)
    note = f"{left_out:,} of the unlabelled texts are rows to score on: left out."
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


def _texts(examples: Examples) -> list[Text]:
    """The texts of a split as `read_texts` gives them; of an embedding model each by itself."""
    first = [text.strip() for text in examples.texts]
    second = [text.strip() for text in examples.pairs or ()]
    if examples.task.embeds or not second:
        return [*first, *second]
    return list(zip(first, second, strict=True))
