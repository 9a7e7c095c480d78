"""Cutting token sequences into micro-batches for the engine, and putting results back in order.

The engine takes sequences laid end to end and computes no padding, so a batch may mix lengths
freely. They are sorted by length all the same: texts of like length in one batch split evenly
over threads, and the longest batch comes first, where lack of memory shows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from sparsebert.errors import InputError
from sparsebert.inference.sequences import IntVector, Tokens

Floats = npt.NDArray[np.float32]
EngineCall = Callable[[IntVector, IntVector, IntVector], Floats]
"""``(ids [tokens], type_ids [tokens], offsets [batch + 1])`` to float32 rows."""

MAX_TOKENS = 16_384
"""Tokens in a micro-batch at most: bounds memory, whatever the batch size."""


def plan(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices of the sequences of each micro-batch, longest first; equal lengths as they came."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size must be a whole number from 1, not {batch_size!r}.")
    batch: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and (len(batch) == batch_size or tokens + lengths[index] > MAX_TOKENS):
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch


def end_to_end(sequences: Sequence[Tokens]) -> tuple[IntVector, IntVector, IntVector]:
    """``ids``, ``type_ids`` and ``offsets`` of sequences laid one behind the other."""
    offsets = np.zeros(len(sequences) + 1, np.int32)
    np.cumsum([len(sequence) for sequence in sequences], out=offsets[1:])
    ids = np.concatenate([sequence.ids for sequence in sequences])
    type_ids = np.concatenate([sequence.type_ids for sequence in sequences])
    return ids, type_ids, offsets


def run_per_text(
    sequences: Sequence[Tokens], batch_size: int, width: int, call: EngineCall
) -> Floats:
    """One row a sequence, ``[sequences, width]``, in the order given."""
    rows = np.empty((len(sequences), width), np.float32)
    for batch in plan([len(sequence) for sequence in sequences], batch_size):
        rows[batch] = call(*end_to_end([sequences[index] for index in batch]))
    return rows


def run_per_token(
    sequences: Sequence[Tokens], batch_size: int, call: EngineCall
) -> Iterator[tuple[int, Floats]]:
    """Index of a sequence and its rows ``[tokens, width]``, batch by batch (longest first).

    Handed out as they come, for a vocabulary's worth of logits for each token is best reduced
    before the next batch is computed.
    """
    for batch in plan([len(sequence) for sequence in sequences], batch_size):
        ids, type_ids, offsets = end_to_end([sequences[index] for index in batch])
        rows = call(ids, type_ids, offsets)
        yield from zip(batch, np.split(rows, offsets[1:-1]), strict=True)


def in_order(results: Iterator[tuple[int, Floats]], count: int) -> list[Floats]:
    """The second of each pair, placed by the first."""
    placed = dict(results)
    return [placed[index] for index in range(count)]
