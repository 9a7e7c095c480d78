"""Token-budget dynamic batching: sequences of many requests share the engine's batches.

A free engine thread takes whatever is waiting, oldest first, up to a number of tokens; it never
waits for more to arrive. A large request gives way to those behind it after part of a batch, and
continues when they have had their turn, so that nobody waits for all of it. The result of a
sequence does not depend on the others in its batch (in floating point, up to rounding).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from threading import Condition, Thread
from time import perf_counter
from typing import Any, NamedTuple

from sparsebert.engine import Encoder
from sparsebert.inference.batching import EngineCall, Floats
from sparsebert.inference.sequences import Tokens
from sparsebert.serving.errors import RequestError

NUMBER_BYTES = 4 + 12
"""Bytes to reserve for a number: as float32, and as JSON text."""
BatchObserver = Callable[[Sequence[int], float], None]
"""Called after each batch with the length of each sequence in tokens, and the seconds taken."""


def result_bytes(call: EngineCall, sequences: Sequence[Tokens], width: int) -> int:
    """Bytes to reserve for the rows of ``sequences``, up to ``width`` wide, and their JSON."""
    rows = sum(map(len, sequences)) if call.per_token else len(sequences)
    return rows * width * NUMBER_BYTES


class Job:
    """An engine call on the sequences of one request; ``future`` gets all its ``rows``."""

    def __init__(self, call: EngineCall, future: asyncio.Future[list[Floats]]) -> None:
        self.call = call
        self.future = future
        self.sequences: Sequence[Tokens] = ()
        self.rows: list[Any] = []
        self.taken = 0  # sequences handed to the engine
        self.left = 0  # sequences without rows
        self.failed: RequestError | None = None
        self.turn = 0.0  # perf_counter time since which it has waited for its turn
        self.queued = self.begun = self.ended = 0.0  # perf_counter times

    def deliver(self) -> None:
        """Wake the request; runs on its event loop."""
        if self.future.done():
            return
        if self.failed is not None:
            self.future.set_exception(self.failed)
        else:
            self.future.set_result(self.rows)


class _Taken(NamedTuple):
    """One sequence in a batch, at index ``place`` of ``job``."""

    job: Job
    place: int


class Batcher:
    """The waiting sequences of one model and the threads that run them, one per encoder."""

    def __init__(
        self, name: str, encoders: Sequence[Encoder], max_tokens: int, observe: BatchObserver
    ) -> None:
        self._max_tokens = max_tokens
        self._max_turn = max(1, max_tokens // 4)  # tokens of one job while others wait
        self._observe = observe
        self._waiting: dict[EngineCall, deque[Job]] = {}
        self._changed = Condition()
        self._closed = False
        self._threads = [
            Thread(target=self._work, args=(encoder,), name=f"{name}-{place}", daemon=True)
            for place, encoder in enumerate(encoders)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether every engine thread is still running."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def waiting_tokens(self) -> int:
        """Tokens that no engine thread has taken yet."""
        with self._changed:
            return sum(
                len(sequence)
                for jobs in self._waiting.values()
                for job in jobs
                for sequence in job.sequences[job.taken :]
            )

    @property
    def waiting_sequences(self) -> int:
        """Sequences that no engine thread has taken yet."""
        with self._changed:
            return sum(
                len(job.sequences) - job.taken for jobs in self._waiting.values() for job in jobs
            )

    def put(self, job: Job, sequences: Sequence[Tokens]) -> None:
        """Queue a job with its sequences (at least one); thread-safe."""
        job.sequences = sequences
        job.rows = [None] * len(sequences)
        job.left = len(sequences)
        job.queued = job.turn = perf_counter()
        with self._changed:
            self._waiting.setdefault(job.call, deque()).append(job)
            self._changed.notify()

    def close(self) -> None:
        """Let the threads finish the queue, and wait until they have ended."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, encoder: Encoder) -> None:
        while batch := self._next_batch():
            self._run(encoder, batch)

    def _next_batch(self) -> list[_Taken]:
        """What to run next, oldest first; nothing once closed and empty."""
        with self._changed:
            while True:
                batch = self._take()
                if batch or (self._closed and not self._waiting):
                    if self._waiting:  # `put` wakes one thread; a job may be enough for several
                        self._changed.notify()
                    return batch
                self._changed.wait()

    def _take(self) -> list[_Taken]:
        """Sequences of the next job and, up to the budget, of others with the same engine call."""
        batch: list[_Taken] = []
        left = self._max_tokens
        while self._waiting and not batch:
            call = min(self._waiting, key=lambda call: self._waiting[call][0].turn)
            jobs = self._waiting[call]
            while jobs:
                job = jobs[0]
                if job.future.done() or job.failed:  # its client is gone, or it cannot succeed
                    job.taken = len(job.sequences)
                turn = self._max_turn
                while job.taken < len(job.sequences) and turn > 0:
                    length = len(job.sequences[job.taken])
                    if batch and length > left:
                        return batch
                    batch.append(_Taken(job, job.taken))
                    job.taken += 1
                    left -= length
                    turn -= length
                jobs.popleft()
                if job.taken < len(job.sequences):
                    job.turn = perf_counter()
                    jobs.append(job)
            del self._waiting[call]
        return batch

    def _run(self, encoder: Encoder, batch: list[_Taken]) -> None:
        # Longest first: texts of similar length split evenly over the engine's threads.
        batch.sort(key=lambda taken: -len(taken.job.sequences[taken.place]))
        sequences = [taken.job.sequences[taken.place] for taken in batch]
        begun = perf_counter()
        failed = None
        rows: Sequence[Floats | None] = [None] * len(batch)
        try:
            rows = batch[0].job.call(encoder, sequences)
        except Exception as error:  # whatever it is, the thread must go on for other requests
            failed = RequestError(424, f"the engine failed: {str(error).rstrip('.')}.")
        ended = perf_counter()
        self._observe([len(sequence) for sequence in sequences], ended - begun)
        done: dict[asyncio.AbstractEventLoop, list[Job]] = {}
        with self._changed:  # other engine threads may have sequences of the same jobs
            for (job, place), result in zip(batch, rows, strict=True):
                job.rows[place] = result
                job.begun = job.begun or begun
                job.ended = ended
                job.failed = job.failed or failed
                job.left -= 1
                if job.left == 0 or (failed and job.failed is failed):
                    done.setdefault(job.future.get_loop(), []).append(job)
        for loop, jobs in done.items():
            wake(loop, partial(_deliver, jobs))


def _deliver(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.deliver()


def wake(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Have ``loop`` run ``callback`` soon; thread-safe. Does nothing if the loop is closed."""
    with suppress(RuntimeError):  # a closed loop has nothing that waits
        loop.call_soon_threadsafe(callback)
