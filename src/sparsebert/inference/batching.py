"""Micro-batches of token sequences for the engine, and their results in the original order.

The engine takes sequences laid end to end and computes no padding, so a batch may mix lengths
freely. They are still sorted by length: texts of similar length in one batch split evenly over
threads, and the longest batch comes first, so that a lack of memory shows at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from sparsebert.engine import Encoder
from sparsebert.errors import InputError
from sparsebert.inference.sequences import IntVector, Tokens

Floats = npt.NDArray[np.float32]
MAX_TOKENS = 16_384
"""Maximum tokens in a micro-batch: bounds memory, whatever the batch size."""
_LOGITS_TOKENS = 512  # tokens whose logits are in memory at once: 60 MB for 30,000 words


def plan(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices of the sequences of each micro-batch, longest first; ties in input order."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size must be an integer of at least 1, not {batch_size!r}.")
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


class RaggedBatch(NamedTuple):
    """Concatenated sequences, without padding.

    ``ids`` and ``type_ids`` are int32 ``[tokens]``; sequence s is ``offsets[s]:offsets[s + 1]``
    (``offsets`` int32 ``[batch + 1]``), of which the first ``keys[s]`` tokens are attended to
    (int32 ``[batch]``, or None: all).
    """

    ids: IntVector
    type_ids: IntVector
    offsets: IntVector
    keys: IntVector | None = None

    @classmethod
    def of(cls, sequences: Sequence[Tokens]) -> RaggedBatch:
        """Lay sequences end to end."""
        offsets = np.zeros(len(sequences) + 1, np.int32)
        np.cumsum([len(sequence) for sequence in sequences], out=offsets[1:])
        ids = np.concatenate([sequence.ids for sequence in sequences])
        type_ids = np.concatenate([sequence.type_ids for sequence in sequences])
        keys = None
        if any(sequence.keys is not None for sequence in sequences):
            counts = [len(each) if each.keys is None else each.keys for each in sequences]
            keys = np.array(counts, np.int32)
        return cls(ids, type_ids, offsets, keys)


@dataclass(frozen=True)
class EngineCall:
    """One way to run the engine. Sequences with equal calls may share a batch.

    With ``per_token``, each sequence yields one row per token instead of a single row. ``pooling``
    and ``normalize`` are for "pooled". "sparse" yields one row over the vocabulary per sequence,
    from a masked-LM head's logits x: ``pooling`` is "max" (the largest x), "sum" (the sum of
    log(1 + max(x, 0))) or "sum twice" (the same, each with the logarithm applied twice). "masked"
    yields the logits of the one position in each sequence whose id is ``token``.
    """

    method: Literal["pooled", "head", "hidden", "sparse", "masked"]
    per_token: bool = False
    pooling: str = "mean"
    normalize: bool = False
    token: int = 0

    def __call__(self, encoder: Encoder, sequences: Sequence[Tokens]) -> list[Floats]:
        """The rows of each sequence, float32: ``[width]``, or ``[tokens, width]`` per token."""
        batch = RaggedBatch.of(sequences)
        rows = self.rows(encoder, batch)
        return np.split(rows, batch.offsets[1:-1]) if self.per_token else list(rows)

    def rows(self, encoder: Encoder, batch: RaggedBatch) -> Floats:
        """The rows of all sequences, float32 ``[sequences, width]`` or ``[tokens, width]``."""
        if self.method in ("sparse", "masked"):
            return self._of_logits(encoder, batch)
        if self.method == "hidden":
            return encoder.hidden(*batch)
        sequences = (batch.ids, batch.type_ids, batch.offsets)
        if self.method == "pooled":
            return encoder.pooled(*sequences, self.pooling, self.normalize)
        return encoder.head(*sequences)

    def _of_logits(self, encoder: Encoder, batch: RaggedBatch) -> Floats:
        """Run a few sequences at a time, as logits over the vocabulary are large."""
        found: list[Floats] = []
        offsets, first = batch.offsets, 0
        for last in range(1, len(offsets)):
            whole = last + 1 == len(offsets)
            if not whole and offsets[last + 1] - offsets[first] <= _LOGITS_TOKENS:
                continue
            part = slice(offsets[first], offsets[last])
            starts = offsets[first : last + 1] - offsets[first]
            logits = encoder.head(batch.ids[part], batch.type_ids[part], starts)
            if self.method == "masked":
                found.append(logits[batch.ids[part] == self.token])
            elif self.pooling == "max":
                found.append(np.maximum.reduceat(logits, starts[:-1], axis=0))
            else:
                weights = sparse_weights(logits, twice=self.pooling.endswith("twice"))
                found.append(np.add.reduceat(weights, starts[:-1], axis=0))
            first = last
        return np.concatenate(found)


def sparse_weights(logits: Floats, *, twice: bool) -> Floats:
    """log(1 + max(x, 0)), with ``twice`` log(1 + that)."""
    weights = np.log1p(np.maximum(logits, 0))
    return np.asarray(np.log1p(weights) if twice else weights)


def results(
    encoder: Encoder, call: EngineCall, sequences: Sequence[Tokens], batch_size: int
) -> Iterator[tuple[int, Floats]]:
    """The index of each sequence and its row or rows, as soon as its micro-batch is done."""
    for indices in plan([len(sequence) for sequence in sequences], batch_size):
        found = call(encoder, [sequences[index] for index in indices])
        yield from zip(indices, found, strict=True)


def run(
    encoder: Encoder,
    call: EngineCall,
    sequences: Sequence[Tokens],
    batch_size: int,
    width: int = 0,
) -> Any:
    """The results in the order given: one row per sequence, float32 ``[sequences, width]``.

    Of a call that is ``per_token``, a list of float32 ``[tokens, width]``, whatever the ``width``.
    """
    shape = (len(sequences), width)
    rows: Any = [None] * len(sequences) if call.per_token else np.empty(shape, np.float32)
    for index, found in results(encoder, call, sequences, batch_size):
        rows[index] = found
    return rows
