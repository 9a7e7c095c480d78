"""Checking token ids that a caller made without our tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sparsebert.errors import InputError
from sparsebert.inference.tokenizing import IntVector, Tokens


def as_token_sequences(
    ids: Iterable[Any],
    type_ids: Iterable[Any] | None,
    *,
    vocab_size: int,
    type_vocab_size: int,
    max_positions: int,
) -> list[Tokens]:
    """Check a list of sequences of token ids, and of their type ids (all 0 without).

    Raises InputError, naming the place, for a wrong nesting, for a sequence that is empty or
    longer than ``max_positions``, and for an id that the model's tables do not hold.
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
            f"{name} is a single number: give a list of sequences, [[101, ...]], also for one."
        )
    if row.size == 0 and row.ndim == 1:
        return np.zeros(0, np.int32)
    if row.ndim != 1 or row.dtype.kind not in "iu":
        raise InputError(f"{name} must be a flat sequence of whole numbers.")
    outside = np.flatnonzero((row < 0) | (row >= size))
    if outside.size:
        place = int(outside[0])
        raise InputError(
            f"{name}[{place}] is {int(row[place])}, outside the model's {table} of {size}."
        )
    return row.astype(np.int32)
