"""Admission control: limits on concurrent requests and memory, enforced against slow clients.

A request reserves memory from the first part of its body until the last part of its response is
written, and one of the slots for concurrent requests from the moment its body has arrived. When the
server is full, it evicts the request that has waited longest for its client, one that uploads
slowly or does not read. If none is waiting for its client, the new request gets 429. So a slow or
hostile client costs nobody else a response.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from time import monotonic

from sparsebert.serving.errors import RequestError, overloaded

_GRACE = 0.5  # seconds before a client counts as slow


class Admission:
    """The concurrency limit and memory budget of one server; thread-safe."""

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.in_flight = 0
        self.bytes = 0
        self.lock = RLock()
        self.slow: dict[Reservation, float] = {}  # waiting for their client, longest first

    def evict_slowest(self, matches: Callable[[Reservation], object]) -> bool:
        """Evict the request that matches and has the slowest client; False if there is none."""
        latest = monotonic() - _GRACE
        for reservation, since in self.slow.items():
            if since > latest:
                break
            if matches(reservation):
                reservation.evict()
                return True
        return False


class Reservation:
    """The slot and the memory of one request.

    ``abort`` makes the event loop close its connection.
    """

    def __init__(self, admission: Admission, abort: Callable[[], object] | None = None) -> None:
        self._admission = admission
        self._abort = abort
        self._released = False
        self.has_slot = False
        self.bytes = 0

    def acquire_slot(self) -> None:
        """Take a slot, or raise RequestError 429."""
        admission = self._admission
        with admission.lock:
            while admission.in_flight >= admission.max_requests:
                if not admission.evict_slowest(lambda other: other.has_slot):
                    raise overloaded(admission.max_requests)
            if not self._released:
                self.has_slot = True
                admission.in_flight += 1

    def reserve(self, count: int) -> None:
        """Reserve ``count`` bytes, or raise RequestError: 429, or 413 if they can never fit."""
        admission = self._admission
        with admission.lock:
            if self.bytes + count > admission.max_bytes:
                raise RequestError(
                    413,
                    f"the request and its response take more than {admission.max_bytes} bytes of "
                    "memory (--max-bytes-in-flight): send fewer or shorter texts in a request.",
                )
            if not self._make_room(count):
                raise RequestError(
                    429,
                    "the server is overloaded: requests and responses fill the memory reserved for "
                    "them; try again in a moment.",
                    headers={"Retry-After": "1"},
                )
            self._add(count)

    def reserve_response(self, count: int) -> None:
        """Replace all reserved bytes by those of the response, which is already in memory.

        This never fails; slow clients' requests are evicted to make room where possible.
        """
        with self._admission.lock:
            self._add(-self.bytes)
            self._make_room(count)
            self._add(count)

    def free(self, count: int) -> None:
        """Release ``count`` bytes."""
        self._add(-count)

    @contextmanager
    def waiting_for_client(self) -> Iterator[None]:
        """A context in which the request waits for its client, and may be evicted for that."""
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

    def evict(self) -> None:
        """Close the connection and release everything at once."""
        assert self._abort is not None
        self.release()
        self._abort()

    def release(self) -> None:
        """Release the slot and all bytes."""
        admission = self._admission
        with admission.lock:
            self._released = True
            admission.slow.pop(self, None)
            admission.bytes -= self.bytes
            admission.in_flight -= self.has_slot
            self.bytes, self.has_slot = 0, False

    def _make_room(self, count: int) -> bool:
        admission = self._admission
        while admission.bytes + count > admission.max_bytes:
            if not admission.evict_slowest(lambda other: other is not self and other.bytes):
                return False
        return True

    def _add(self, count: int) -> None:
        with self._admission.lock:
            if not self._released:
                self.bytes += count
                self._admission.bytes += count
