"""What one request cost: counts and times for its headers, its log line and the metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter

from sparsebert.serving.admission import Claim


@dataclass
class Work:
    """Filled in while a request is answered; times are seconds. ``claim`` is what it holds.

    ``queue`` is from the last token made to the first batch begun, ``inference`` from there to the
    end of the last batch.
    """

    claim: Claim
    started: float = field(default_factory=perf_counter)
    model: str = ""
    items: int = 0
    characters: int = 0
    tokens: int = 0
    tokenization: float = 0.0
    queue: float = 0.0
    inference: float = 0.0

    def headers(self) -> dict[str, str]:
        """TEI's headers, in whole milliseconds as it sends them, and the web's own Server-Timing.

        Server-Timing has microseconds, and browsers' developer tools draw it.
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
