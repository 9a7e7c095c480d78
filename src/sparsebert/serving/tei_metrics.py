"""The metrics of text-embeddings-inference under its own names, for dashboards made for it.

| name | |
|---|---|
| ``te_request_count``, ``te_request_success`` | requests, ``method`` "single" or "batch" |
| ``te_request_failure`` | requests that failed, by ``err`` |
| ``te_request_duration`` and ``te_request_{tokenization,queue,inference}_duration`` | seconds |
| ``te_embed_count``, ``te_predict_count`` and their ``..._success`` | texts |
| ``te_request_input_length`` | tokens of each text |
| ``te_batch_next_size``, ``te_batch_next_tokens`` | texts and tokens of each batch |
| ``te_queue_size`` | texts that wait |

Buckets are its own too. A list of one text counts as "single" here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Gauge, Histogram, Metric

from sparsebert.serving.work import Work

_SECONDS = [1e-5 * 1.5**power for power in range(1, 36)]
_FAILURES = {429: "overloaded", 424: "inference", 499: "dropped", 500: "inference"}
_STEPS = ("", "_tokenization", "_queue", "_inference")


class TeiMetrics:
    """A collector in ``registry``; ``waiting`` tells how many texts wait."""

    def __init__(self, registry: CollectorRegistry, waiting: Callable[[], float]) -> None:
        def histogram(name: str, what: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"te_{name}", what, buckets=buckets, registry=registry)

        self._durations = [
            histogram(f"request{step}_duration", "Seconds of a request.", _SECONDS)
            for step in _STEPS
        ]
        self._lengths = histogram("request_input_length", "Tokens of a text.", _powers(20))
        self._sizes = histogram("batch_next_size", "Texts of a batch.", _powers(13))
        self._tokens = histogram("batch_next_tokens", "Tokens of a batch.", _powers(21))
        Gauge("te_queue_size", "Texts that wait.", registry=registry).set_function(waiting)
        self._counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        registry.register(self)

    def observe_request(self, route: str, status: int, seconds: float, work: Work) -> None:
        """Count a request, if it is one of those that text-embeddings-inference counts."""
        kind = _kind(route)
        if kind is None and not (route == "/" and work.items):
            return
        method = (("method", "single" if work.items == 1 else "batch"),)
        self._counts["te_request_count", method] += 1
        if kind:
            self._counts[f"te_{kind}_count", ()] += work.items
        if status != 200:
            failure = _FAILURES.get(status, "validation")
            self._counts["te_request_failure", (("err", failure),)] += 1
            return
        self._counts["te_request_success", method] += 1
        if kind:
            self._counts[f"te_{kind}_success", ()] += work.items
        spent = (seconds, work.tokenization, work.queue, work.inference)
        for duration, each in zip(self._durations, spent, strict=True):
            duration.observe(each)

    def observe_batch(self, lengths: Sequence[int]) -> None:
        """Count a batch of texts of so many tokens; from any thread."""
        for length in lengths:
            self._lengths.observe(length)
        self._sizes.observe(len(lengths))
        self._tokens.observe(sum(lengths))

    def collect(self) -> Iterable[Metric]:
        """The counters. prometheus_client's own are called ..._total, whatever name they get."""
        found: dict[str, Metric] = {}
        for (name, labels), count in sorted(self._counts.items()):
            if name not in found:
                found[name] = Metric(name, name.removeprefix("te_").replace("_", " "), "unknown")
            found[name].add_sample(name, dict(labels), count)
        return found.values()


def _powers(count: int) -> list[float]:
    return [2.0**power for power in range(count)]


def _kind(route: str) -> str | None:
    if "predict" in route or "rerank" in route:
        return "predict"
    return "embed" if "embed" in route or route == "/similarity" else None
