"""Places and memory: who may work, and whom the server ends when it has no room for the next.

A request holds bytes from the first part of its body until the last of its answer is written, and
one of the places from the moment its body has arrived. Where there is no room, the request goes
that has kept the server waiting for its client for longest: one that uploads, or one that does not
read. If nobody keeps it waiting, the newcomer gets 429. So a client who is slow, or wants to be,
costs nobody else an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from time import monotonic

from sparsebert.serving.errors import RequestError, overloaded

_GRACE = 0.5  # seconds for which no client counts as slow


class Admission:
    """The places and bytes of one server; from any thread."""

    def __init__(self, places: int, max_bytes: int) -> None:
        self.places = places
        self.max_bytes = max_bytes
        self.in_flight = 0
        self.bytes = 0
        self.lock = RLock()
        self.slow: dict[Claim, float] = {}  # those who wait for their client, longest first

    def end_slowest(self, holds: Callable[[Claim], object]) -> bool:
        """End the slowest client's request of those that hold something; False if none does."""
        latest = monotonic() - _GRACE
        for claim, since in self.slow.items():
            if since > latest:
                break
            if holds(claim):
                claim.end()
                return True
        return False


class Claim:
    """What one request holds. ``abort`` closes its connection, on the event loop's thread soon."""

    def __init__(self, admission: Admission, abort: Callable[[], object] | None = None) -> None:
        self._admission = admission
        self._abort = abort
        self._ended = False
        self.place = False
        self.bytes = 0

    def enter(self) -> None:
        """Take a place, or raise RequestError 429."""
        admission = self._admission
        with admission.lock:
            while admission.in_flight >= admission.places:
                if not admission.end_slowest(lambda claim: claim.place):
                    raise overloaded(admission.places)
            if not self._ended:
                self.place = True
                admission.in_flight += 1

    def hold(self, count: int) -> None:
        """Take ``count`` bytes, or raise RequestError: 429, or 413 if there never are as many."""
        admission = self._admission
        with admission.lock:
            if self.bytes + count > admission.max_bytes:
                raise RequestError(
                    413,
                    f"the request and its answer take more than {admission.max_bytes} bytes of "
                    "memory (--max-bytes-in-flight): send fewer or shorter texts in a request.",
                )
            if not self._make_room(count):
                raise RequestError(
                    429,
                    "the server is overloaded: requests and answers fill the memory that it has "
                    "for them; try again in a moment.",
                    headers={"Retry-After": "1"},
                )
            self._add(count)

    def hold_answer(self, count: int) -> None:
        """Hold the bytes of an answer instead of what it was made of.

        It is there already: others must go for it.
        """
        with self._admission.lock:
            self._add(-self.bytes)
            self._make_room(count)
            self._add(count)

    def drop(self, count: int) -> None:
        """Give ``count`` bytes back."""
        self._add(-count)

    @contextmanager
    def waits_for_client(self) -> Iterator[None]:
        """Around what takes as long as the client wants it to."""
        admission = self._admission
        if self._abort is None:
            yield
            return
        with admission.lock:
            admission.slow[self] = monotonic()
        try:
            yield
        finally:
            with admission.lock:
                admission.slow.pop(self, None)

    def end(self) -> None:
        """Close the connection: what the request holds is free from now on."""
        assert self._abort is not None
        self.release()
        self._abort()

    def release(self) -> None:
        """Give everything back."""
        admission = self._admission
        with admission.lock:
            self._ended = True
            admission.slow.pop(self, None)
            admission.bytes -= self.bytes
            admission.in_flight -= self.place
            self.bytes, self.place = 0, False

    def _make_room(self, count: int) -> bool:
        admission = self._admission
        while admission.bytes + count > admission.max_bytes:
            if not admission.end_slowest(lambda claim: claim is not self and claim.bytes):
                return False
        return True

    def _add(self, count: int) -> None:
        with self._admission.lock:
            if not self._ended:
                self.bytes += count
                self._admission.bytes += count
