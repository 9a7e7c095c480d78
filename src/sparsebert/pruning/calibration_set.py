"""The calibration set: a fixed selection of texts, tokenised, sorted by length, unpadded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint.architecture import LinearLayer
from sparsebert.checkpoint.config import EncoderConfig
from sparsebert.checkpoint.folder import Checkpoint
from sparsebert.checkpoint.sparsity import trained_length
from sparsebert.checkpoint.tokenizer import check_ids
from sparsebert.errors import CheckpointError, DataError
from sparsebert.inference.texts import as_texts
from sparsebert.inference.tokenizing import TextTokenizer, TruncationWarning, folder_tokenizer
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.division import read_division
from sparsebert.tasks.examples import selection
from sparsebert.tasks.table import Task
from sparsebert.tasks.texts import Text, read_texts, single_texts


@dataclass(frozen=True)
class CalibrationSet:
    """Token sequences end to end, shortest first, so that those of one length are adjacent.

    ``ids`` and ``type_ids`` are int64 ``[tokens]``; ``lengths`` are the sequences' numbers of
    tokens.
    """

    ids: npt.NDArray[np.int64]
    type_ids: npt.NDArray[np.int64]
    lengths: list[int]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """The index of the first token of each sequence, int64 ``[sequences]``."""
        return np.cumsum([0, *self.lengths[:-1]], dtype=np.int64)

    def scarcity(self, config: EncoderConfig, layers: Sequence[LinearLayer]) -> str | None:
        """A note if there are too few inputs for one of the ``layers`` to prune; else None.

        With fewer vectors than inputs, the layer's output was never seen in some directions, where
        anything may be pruned (the Hessian of the second-order method is singular).
        """
        tokens = len(self.ids)
        widest = max(layer.columns for layer in layers)
        said = f"calibrated on {len(self)} text{'' if len(self) == 1 else 's'}"
        if tokens < widest:
            return (
                f"{said} with {tokens:,} tokens in all, fewer than the {widest:,} inputs of the "
                "widest layer: the weights that were kept suit few other texts, so use several "
                "hundred."
            )
        for layer in layers:
            if reads_once_per_text(config, layer.part) and len(self) < layer.columns:
                return (
                    f"{said}, fewer than the {layer.columns:,} inputs of '{layer.name}', which "
                    "reads one vector per text: the weights that were kept in it suit few other "
                    "texts, so use more, or leave it dense."
                )
        return None

    def parts(self, tokens: int) -> Iterator[tuple[slice, list[tuple[int, int]]]]:
        """Parts of up to ``tokens`` tokens: their slice, and their ``(sequences, length)`` groups.

        All sequences of a group have the same length, so they need no padding and no mask. A
        sequence longer than ``tokens`` is a part of its own.
        """
        start = stop = 0
        groups: list[tuple[int, int]] = []
        for length, members in groupby(self.lengths):
            left = sum(1 for _ in members)
            while left:
                room = (tokens - (stop - start)) // length
                if groups and room < 1:
                    yield slice(start, stop), groups
                    start, groups = stop, []
                    continue
                count = min(left, max(1, room))
                groups.append((count, length))
                stop += count * length
                left -= count
        if groups:
            yield slice(start, stop), groups


def reads_once_per_text(config: EncoderConfig, part: str) -> bool:
    """Whether the linear layers of a part of the model read one vector per text, not per token."""
    head = config.head_shape
    return part == "pooler" or (part == "head" and head is not None and head.pooling is not None)


def read_calibration_set(
    checkpoint: Checkpoint,
    source: str | Path,
    *,
    count: int,
    task: Task | None = None,
    columns: DataOptions | None = None,
) -> CalibrationSet:
    """A fixed selection of ``count`` texts of ``source`` (`sparsebert.tasks.texts.read_texts`).

    ``columns`` names the columns of a table. A model with a head for pairs (sequence
    classification, question answering) reads a pair as one row; any other reads each distinct text
    by itself, as an embedding model does. Texts are truncated to the length that the model was
    fine-tuned with, else to the task's, else to the model's own. Rows that were held out of the
    model's training for scoring are left out. Raises DataError and CheckpointError.
    """
    if count < 1:
        raise DataError(f"calibration needs at least one row, not {count}.")
    texts: Sequence[Text] = read_texts(
        source, task, columns, division=read_division(checkpoint.path)
    )
    if not checkpoint.config.head.reads_pairs:
        texts = list(dict.fromkeys(single_texts(texts)))
    chosen = selection(len(texts), count)
    if chosen is not None:
        texts = [texts[index] for index in chosen]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # the start of a long text will do
        tokens = _tokenizer(checkpoint, task).encode(as_texts(texts))
    tokens.sort(key=len)
    ids = np.concatenate([row.ids for row in tokens]).astype(np.int64)
    type_ids = np.concatenate([row.type_ids for row in tokens]).astype(np.int64)
    check_ids(checkpoint.path, checkpoint.config, ids, type_ids)
    return CalibrationSet(ids, type_ids, [len(row) for row in tokens])


def _tokenizer(checkpoint: Checkpoint, task: Task | None) -> TextTokenizer:
    trained = trained_length(checkpoint.config.sparsity)
    tokenizer = folder_tokenizer(
        checkpoint.path,
        positions=checkpoint.config.max_length,
        max_length=task.max_length if task and trained is None else None,
        type_vocab_size=checkpoint.config.token_types,
    )
    if tokenizer is None:
        raise CheckpointError(
            f"{checkpoint.path} has no tokenizer.json and no vocabulary, so it cannot read the "
            "texts to calibrate on: add one of them."
        )
    return tokenizer
