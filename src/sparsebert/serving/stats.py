"""Statistics of one request, for its headers, log line and metrics, and of one model."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter, time

from sparsebert.serving.admission import Reservation


@dataclass
class RequestStats:
    """Filled in while a request is answered; times are in seconds.

    ``sequences`` are those that the model has answered. ``queue`` is the time from the end of
    tokenisation to the start of the first batch, ``inference`` from there to the end of the last
    batch. ``reservation`` is the request's slot and memory.
    """

    reservation: Reservation
    started: float = field(default_factory=perf_counter)
    model: str = ""
    items: int = 0
    sequences: int = 0
    characters: int = 0
    tokens: int = 0
    tokenization: float = 0.0
    queue: float = 0.0
    inference: float = 0.0

    def headers(self) -> dict[str, str]:
        """TEI's headers, in whole milliseconds as TEI sends them, and the standard Server-Timing.

        Server-Timing has microsecond resolution; browsers' developer tools display it.
        """
        total = perf_counter() - self.started
        spent = f"{1e3 * total:.0f}"
        return {
            "x-compute-type": "cpu",
            "x-compute-time": spent,
            "x-compute-characters": str(self.characters),
            "x-compute-tokens": str(self.tokens),
            "x-total-time": spent,
            "x-tokenization-time": f"{1e3 * self.tokenization:.0f}",
            "x-queue-time": f"{1e3 * self.queue:.0f}",
            "x-inference-time": f"{1e3 * self.inference:.0f}",
            "server-timing": (
                f"tokenization;dur={1e3 * self.tokenization:.3f}, "
                f"queue;dur={1e3 * self.queue:.3f}, "
                f"inference;dur={1e3 * self.inference:.3f}, total;dur={1e3 * total:.3f}"
            ),
        }


@dataclass
class ModelStats:
    """Totals of a model since the server started; times are in seconds."""

    requests: int = 0
    failed: int = 0
    sequences: int = 0
    batches: int = 0
    tokenization: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    total: float = 0.0
    last: float = 0.0  # time of the last request, seconds since 1970

    def count(self, request: RequestStats, status: int, seconds: float) -> None:
        """Count a request that took ``seconds``, as answered if the ``status`` is 200."""
        if status != 200:
            self.failed += 1
        elif request.sequences:
            self.requests += 1
            self.sequences += request.sequences
            self.tokenization += request.tokenization
            self.queue += request.queue
            self.inference += request.inference
            self.total += seconds
            self.last = time()
