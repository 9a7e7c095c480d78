"""Whose sequences go through the engine together, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")

from sparsebert.inference.batching import EngineCall
from sparsebert.inference.sequences import Tokens
from sparsebert.serving.batching import Batcher, Job

POOLED, HEAD = EngineCall("pooled"), EngineCall("head")


class Stepped:
    """An encoder that writes down its batches, and whose first waits for `go`."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go: Future[None] = Future()
        self.begun: Future[None] = Future()

    def pooled(self, ids: Any, _types: Any, offsets: Any, *_rest: Any) -> Any:
        if not self.begun.done():
            self.begun.set_result(None)
            self.go.result(30)
        self.batches.append(ids[offsets[:-1]].tolist())
        return np.zeros((len(offsets) - 1, 1), np.float32)

    head = pooled


def run(jobs: Sequence[tuple[EngineCall, int, int, int]], max_tokens: int) -> list[list[int]]:
    """The batches of jobs ``(call, id, sequences, tokens of each)``, queued in this order.

    The first job is run alone, while the others queue up behind it.
    """
    encoder = Stepped()

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        batcher = Batcher("m", [encoder], max_tokens, lambda *_: None)  # type: ignore[list-item]
        futures = []
        for place, (call, name, count, length) in enumerate(jobs):
            futures.append(loop.create_future())
            tokens = Tokens(np.full(length, name, np.int32), np.zeros(length, np.int32))
            batcher.put(Job(call, futures[-1]), [tokens] * count)
            if place == 0:
                await asyncio.wrap_future(encoder.begun)
        encoder.go.set_result(None)
        found = await asyncio.wait_for(asyncio.gather(*futures), 30)
        assert [len(rows) for rows in found] == [count for _, _, count, _ in jobs]
        batcher.close()

    asyncio.run(ask())
    return encoder.batches[1:]


def test_small_requests_go_in_the_order_of_their_arrival():
    jobs = [(POOLED, 0, 1, 1), *((POOLED, name, 1, 30) for name in range(1, 8))]
    assert run(jobs, 100) == [[1, 2, 3], [4, 5, 6], [7]]


def test_nobody_waits_for_all_of_a_large_request():
    large, small = (POOLED, 1, 40, 50), (POOLED, 2, 1, 50)
    batches = run([(POOLED, 0, 1, 1), large, large, small], 400)
    assert batches[0] == [1, 1, 1, 1, 2, 1, 1, 1]  # a quarter for each of the large
    assert sum(batch.count(1) for batch in batches) == 80


def test_nor_for_one_that_asks_for_something_else():
    batches = run([(POOLED, 0, 1, 1), (POOLED, 1, 40, 50), (HEAD, 2, 1, 50)], 400)
    assert [2] in batches[:2]


def test_a_request_keeps_its_turn_until_it_is_used_up():
    jobs = [(POOLED, 0, 1, 1), (POOLED, 1, 3, 30), (POOLED, 2, 3, 30), (POOLED, 3, 3, 30)]
    assert run(jobs, 400) == [[1, 1, 1, 2, 2, 2, 3, 3, 3]]
    jobs = [(POOLED, 0, 1, 1), (POOLED, 1, 2, 40), (POOLED, 2, 2, 40), (POOLED, 3, 1, 40)]
    assert run(jobs, 130) == [[1, 2, 3], [1, 2]]
