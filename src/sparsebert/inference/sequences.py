"""Token sequences for the engine: tokens of a text with special tokens, or a caller's own ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from sparsebert.errors import CheckpointError, InputError

IntVector = npt.NDArray[np.int32]

_LARGEST = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True)
class Tokens:
    """One sequence for the engine: int32 ``[tokens]`` each, special tokens included.

    ``keys`` is the number of leading tokens that are attended to; None means all.
    """

    ids: IntVector
    type_ids: IntVector
    keys: int | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class LocatedTokens:
    """Tokens with their character offsets.

    ``offsets`` is int32 ``[tokens, 2]``: the characters ``[start, end)`` of each token in the text
    (for a question with its context, in the context), -1 for tokens that are not part of it.
    """

    tokens: Tokens
    offsets: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The special tokens before, between and after one or two texts, and all type ids."""

    ids: list[list[int]]
    types: list[list[int]]
    text_types: list[int]

    @classmethod
    def of(cls, backend: Tokenizer, texts: int) -> SpecialTokens:
        """Derived from how the tokenizer's post-processor encodes a sample.

        Raises CheckpointError for one that changes the order of two texts.
        """
        sample = backend.encode("a") if texts == 1 else backend.encode("a", "a")
        parts = sample.sequence_ids
        edges = [0]
        for text in range(texts):
            edges += [parts.index(text), len(parts) - parts[::-1].index(text)]
        edges.append(len(parts))
        gaps = list(pairwise(edges))[::2]
        found = cls(
            [sample.ids[start:stop] for start, stop in gaps],
            [sample.type_ids[start:stop] for start, stop in gaps],
            [sample.type_ids[parts.index(text)] for text in range(texts)],
        )
        made = found.around([backend.encode("a", add_special_tokens=False).ids] * texts)
        if made.ids.tolist() != sample.ids or made.type_ids.tolist() != sample.type_ids:
            raise CheckpointError(
                "the post-processor in tokenizer.json changes the order of two texts, which "
                "sparsebert does not support."
            )
        return found

    def untyped(self) -> SpecialTokens:
        """The same with all types 0."""
        types = [[0] * len(each) for each in self.types]
        return SpecialTokens(self.ids, types, [0] * len(self.text_types))

    @property
    def most(self) -> int:
        """The largest type id."""
        return max([*self.text_types, *(kind for kinds in self.types for kind in kinds)])

    @property
    def size(self) -> int:
        """Number of special tokens added."""
        return sum(map(len, self.ids))

    def around(self, texts: list[list[int]]) -> Tokens:
        """The full sequence with these texts' ids in it."""
        ids, types = [*self.ids[0]], [*self.types[0]]
        for index, text in enumerate(texts):
            ids += text
            ids += self.ids[index + 1]
            types += [self.text_types[index]] * len(text)
            types += self.types[index + 1]
        return Tokens(_numbers(ids), _numbers(types))

    def located(self, texts: list[list[int]], offsets: list[tuple[int, int]]) -> LocatedTokens:
        """As `around`, with the ``offsets`` of the last text's tokens."""
        tokens = self.around(texts)
        located = np.full((len(tokens), 2), -1, np.int32)
        stop = len(tokens) - len(self.ids[-1])
        if offsets:
            located[stop - len(offsets) : stop] = offsets
        return LocatedTokens(tokens, located)


def _numbers(of_tokens: list[int]) -> IntVector:
    """Ids and types of the tokenizers library (32 bits, unsigned) as int32."""
    numbers = np.array(of_tokens, np.uint32)
    largest = int(numbers.max(initial=0))
    if largest > _LARGEST:
        raise CheckpointError(
            f"the tokenizer gives a token the id or type {largest}; the largest supported is "
            f"{_LARGEST}."
        )
    return numbers.astype(np.int32)


def with_keys(sequences: Sequence[Tokens], keys: Sequence[int]) -> list[Tokens]:
    """The sequences with the number of leading tokens to attend to. Raises InputError."""
    if len(keys) != len(sequences):
        raise InputError(f"there are {len(keys)} keys for {len(sequences)} sequences.")
    for index, (sequence, count) in enumerate(zip(sequences, keys, strict=True)):
        is_integer = isinstance(count, (int, np.integer)) and not isinstance(count, bool)
        if not is_integer or not 1 <= count <= len(sequence):
            raise InputError(
                f"keys[{index}] must be an integer from 1 to {len(sequence)}, the length of the "
                f"sequence, not {count!r}."
            )
    return [replace(each, keys=int(count)) for each, count in zip(sequences, keys, strict=True)]


def as_token_sequences(
    ids: Iterable[Any],
    type_ids: Iterable[Any] | None,
    *,
    vocab_size: int,
    type_vocab_size: int,
    max_positions: int,
) -> list[Tokens]:
    """Check a list of sequences of token ids, and of their type ids (all 0 without).

    Raises InputError, naming the index, for wrong nesting, for a sequence that is empty or longer
    than ``max_positions``, and for an id outside the model's tables.
    """
    sequences = _rows(ids, "ids")
    types = None if type_ids is None else _rows(type_ids, "type_ids")
    if types is not None and len(types) != len(sequences):
        raise InputError(
            f"there are {len(sequences)} sequences of ids and {len(types)} of type_ids."
        )
    checked = []
    for index, sequence in enumerate(sequences):
        row = _row(sequence, f"ids[{index}]", vocab_size, "vocabulary")
        if not 1 <= len(row) <= max_positions:
            raise InputError(
                f"ids[{index}] has {len(row)} tokens: the model takes 1 to {max_positions}."
            )
        kinds = np.zeros_like(row)
        if types is not None:
            kinds = _row(types[index], f"type_ids[{index}]", type_vocab_size, "type vocabulary")
            if len(kinds) != len(row):
                raise InputError(
                    f"type_ids[{index}] has {len(kinds)} entries for {len(row)} tokens of ids."
                )
        checked.append(Tokens(row, kinds))
    return checked


def _rows(ids: Iterable[Any], name: str) -> Sequence[Any]:
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise InputError(f"{name} must be a list of sequences of token ids: {name} = [[101, ...]].")
    return list(ids)


def _row(sequence: Any, name: str, size: int, table: str) -> IntVector:
    try:
        row = np.asarray(sequence)
    except ValueError:  # sequences of unequal length in it
        row = np.empty((0, 0))
    if row.ndim == 0 and row.dtype.kind in "iu":
        raise InputError(
            f"{name} is a single number: pass a list of sequences, [[101, ...]], even for one."
        )
    if row.size == 0 and row.ndim == 1:
        return np.zeros(0, np.int32)
    if row.ndim != 1 or row.dtype.kind not in "iu":
        raise InputError(f"{name} must be a flat sequence of integers.")
    outside = np.flatnonzero((row < 0) | (row >= size))
    if outside.size:
        index = int(outside[0])
        raise InputError(
            f"{name}[{index}] is {int(row[index])}, outside the model's {table} of {size}."
        )
    return row.astype(np.int32)
