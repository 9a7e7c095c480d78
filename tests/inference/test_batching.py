"""Micro-batches: every sequence once, nothing too large, answers where they belong."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsebert.errors import InputError
from sparsebert.inference.batching import (
    MAX_TOKENS,
    EngineCall,
    RaggedBatch,
    plan,
    run,
)
from sparsebert.inference.sequences import Tokens, as_token_sequences


def sequences(*lengths: int) -> list[Tokens]:
    """Sequence i is filled with id i, so that an answer shows whose it is."""
    return [
        Tokens(np.full(length, place, np.int32), np.full(length, place % 2, np.int32))
        for place, length in enumerate(lengths)
    ]


class TestPlan:
    @given(
        st.lists(st.integers(1, 512), max_size=200),
        st.integers(1, 64),
    )
    def test_each_once_longest_first_within_limits(self, lengths, batch_size):
        batches = list(plan(lengths, batch_size))
        order = [index for batch in batches for index in batch]
        assert sorted(order) == list(range(len(lengths)))
        ordered = [lengths[index] for index in order]
        assert ordered == sorted(lengths, reverse=True)
        assert all(0 < len(batch) <= batch_size for batch in batches)
        assert all(sum(lengths[index] for index in batch) <= MAX_TOKENS for batch in batches)

    def test_tokens_are_limited(self):
        assert [len(batch) for batch in plan([512] * 100, 1000)] == [32, 32, 32, 4]

    def test_a_text_over_the_limit_runs_alone(self):
        assert list(plan([5, MAX_TOKENS + 1, 5], 8)) == [[1], [0, 2]]

    @pytest.mark.parametrize("batch_size", [0, -1, 1.5, None, True])
    def test_batch_size_that_is_none(self, batch_size):
        with pytest.raises(InputError, match="batch_size"):
            list(plan([1], batch_size))


class Counting:
    """An encoder whose rows tell the ids and lengths that it was given."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def head(self, ids, type_ids, offsets):
        assert len(offsets) - 1 <= self.batch_size
        return np.stack([ids[offsets[:-1]], np.diff(offsets)], axis=1).astype(np.float32)

    def hidden(self, ids, type_ids, offsets, keys):
        assert len(offsets) - 1 <= self.batch_size
        assert keys is None
        return ids[:, None].astype(np.float32)


class TestRun:
    def test_end_to_end(self):
        ids, type_ids, offsets, keys = RaggedBatch.of(sequences(2, 1, 3))
        assert keys is None
        assert ids.tolist() == [0, 0, 1, 2, 2, 2]
        assert type_ids.tolist() == [0, 0, 1, 0, 0, 0]
        assert offsets.tolist() == [0, 2, 3, 6]
        assert ids.dtype == type_ids.dtype == offsets.dtype == np.int32

    def test_of_some_only_the_first_tokens_are_attended_to(self):
        first, second, third = sequences(2, 1, 3)
        keys = RaggedBatch.of([first, second, replace(third, keys=2)]).keys
        assert keys.tolist() == [2, 1, 2]
        assert keys.dtype == np.int32

    @pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
    def test_rows_come_back_in_order(self, batch_size):
        given = sequences(3, 1, 4, 1, 5, 9, 2, 6)
        encoder = Counting(batch_size)
        rows = run(encoder, EngineCall("head"), given, batch_size, 2)
        assert rows[:, 0].tolist() == list(range(8))
        assert rows[:, 1].tolist() == [3, 1, 4, 1, 5, 9, 2, 6]

        tokens = run(encoder, EngineCall("hidden", per_token=True), given, batch_size)
        assert [rows.shape for rows in tokens] == [(len(each), 1) for each in given]
        assert [rows[0, 0] for rows in tokens] == list(range(8))

    def test_nothing_to_run(self):
        assert run(None, EngineCall("head"), [], 8, 5).shape == (0, 5)
        assert run(None, EngineCall("hidden", per_token=True), [], 8) == []


class TestTokenIds:
    SIZES: ClassVar = {"vocab_size": 100, "type_vocab_size": 2, "max_positions": 8}

    @pytest.mark.parametrize(
        "ids",
        [
            [[1, 2], [3]],
            [(1, 2), np.array([3], np.int64)],
            [np.array([1, 2], np.uint16), [np.int32(3)]],
            iter([[1, 2], [3]]),
        ],
    )
    def test_what_is_taken(self, ids):
        first, second = as_token_sequences(ids, None, **self.SIZES)
        assert first.ids.tolist() == [1, 2]
        assert first.type_ids.tolist() == [0, 0]
        assert second.ids.tolist() == [3]
        assert first.ids.dtype == first.type_ids.dtype == np.int32

    def test_matrix_and_types(self):
        tokens = as_token_sequences(np.ones((2, 3), int), [[0, 1, 1], [0, 0, 0]], **self.SIZES)
        assert tokens[0].type_ids.tolist() == [0, 1, 1]

    @pytest.mark.parametrize(
        ("ids", "type_ids", "said"),
        [
            ([1, 2], None, r"ids\[0\] is a single number"),
            (5, None, "must be a list of sequences"),
            ("text", None, "must be a list of sequences"),
            (["text"], None, r"ids\[0\] must be a flat sequence of integers"),
            ([[[1, 2]]], None, r"ids\[0\] must be a flat sequence"),
            ([[1], [[1], [2, 3]]], None, r"ids\[1\] must be a flat sequence"),
            ([[1.0, 2.0]], None, "integers"),
            ([[True, False]], None, "integers"),
            ([[None]], None, "integers"),
            ([[1], []], None, r"ids\[1\] has 0 tokens: the model takes 1 to 8"),
            ([[1] * 9], None, r"ids\[0\] has 9 tokens"),
            ([[1, 100]], None, r"ids\[0\]\[1\] is 100, outside the model's vocabulary of 100"),
            ([[1], [3, 2**40]], None, r"ids\[1\]\[1\] is 1099511627776"),
            ([[2**70]], None, "integers"),
            ([[-1]], None, r"ids\[0\]\[0\] is -1"),
            ([[1, 2]], [[0, 2]], r"type_ids\[0\]\[1\] is 2, outside the model's type vocabulary"),
            ([[1, 2]], [[0]], r"type_ids\[0\] has 1 entries for 2 tokens"),
            ([[1, 2]], [[0, 0], [0]], "1 sequences of ids and 2 of type_ids"),
            ([[1, 2]], 0, "type_ids must be a list"),
        ],
    )
    def test_what_is_refused(self, ids, type_ids, said):
        with pytest.raises(InputError, match=said):
            as_token_sequences(ids, type_ids, **self.SIZES)
