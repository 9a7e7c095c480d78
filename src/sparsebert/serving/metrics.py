"""Prometheus metrics of one server, in its own registry: ours and TEI's.

`TeiMetrics` has the metrics of text-embeddings-inference under its names, for existing dashboards:

| name | |
|---|---|
| ``te_request_count``, ``te_request_success`` | requests, ``method`` "single" or "batch" |
| ``te_request_failure`` | requests that failed, by ``err`` |
| ``te_request_duration`` and ``te_request_{tokenization,queue,inference}_duration`` | seconds |
| ``te_embed_count``, ``te_predict_count`` and their ``..._success`` | texts |
| ``te_request_input_length`` | tokens of each text |
| ``te_batch_next_size``, ``te_batch_next_tokens`` | texts and tokens of each batch |
| ``te_queue_size`` | texts in the queue |

The buckets are TEI's too. A list of one text counts as "single" here, as does a
request that was refused before its texts were counted.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection, Iterable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
)

from sparsebert.serving.admission import Admission
from sparsebert.serving.served_model import ServedModel
from sparsebert.serving.stats import RequestStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TEI_SECONDS = [1e-5 * 1.5**power for power in range(1, 36)]
_FAILURES = {429: "overloaded", 424: "inference", 499: "dropped", 500: "inference"}
_STEPS = ("", "_tokenization", "_queue", "_inference")
_TOKENS = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Metrics:
    """Metrics of requests, batches, the queue and the process.

    Labels are only routes, statuses and model names, so that the number of series is bounded.
    """

    def __init__(self, admission: Admission, models: Collection[ServedModel]) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        ProcessCollector(registry=registry)
        self._tei = TeiMetrics(registry, lambda: sum(each.waiting_sequences for each in models))

        def seconds(name: str, what: str) -> Histogram:
            return Histogram(
                f"sparsebert_{name}_seconds", what, ["route"], buckets=_SECONDS, registry=registry
            )

        self._requests = Counter(
            "sparsebert_requests",
            "Requests by route and status.",
            ["route", "status"],
            registry=registry,
        )
        self._total = seconds(
            "request", "Seconds from a request's headers to the end of its response."
        )
        self._tokenization = seconds("tokenization", "Seconds of tokenising a request's texts.")
        self._queue = seconds("queue", "Seconds that a request waits for the engine.")
        self._inference = seconds(
            "inference", "Seconds from the start of a request's first batch to the end of its last."
        )
        self._of_route: dict[str, list[Histogram]] = {}
        self._items = Counter(
            "sparsebert_texts", "Texts answered, by model.", ["model"], registry=registry
        )
        self._tokens = Counter(
            "sparsebert_tokens", "Tokens answered, by model.", ["model"], registry=registry
        )

        def batch(name: str, what: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(
                f"sparsebert_batch_{name}", what, ["model"], buckets=buckets, registry=registry
            )

        self._batch_sequences = batch("sequences", "Sequences in a batch.", _COUNTS)
        self._batch_tokens = batch("tokens", "Tokens in a batch.", _TOKENS)
        self._batch_seconds = batch("seconds", "Seconds of a batch in the engine.", _SECONDS)

        def gauge(name: str, what: str, value: Callable[[], float]) -> None:
            Gauge(f"sparsebert_{name}", what, registry=registry).set_function(value)

        gauge("requests_in_flight", "Requests being answered.", lambda: admission.in_flight)
        gauge(
            "bytes_in_flight",
            "Bytes of bodies, results and unread responses.",
            lambda: admission.bytes,
        )
        gauge(
            "waiting_tokens",
            "Tokens waiting for the engine.",
            lambda: sum(each.waiting_tokens for each in models),
        )

    def observe_request(self, route: str, status: int, seconds: float, stats: RequestStats) -> None:
        """Count a request; observe its times if it was answered by the engine."""
        self._requests.labels(route, str(status)).inc()
        self._tei.observe_request(route, status, seconds, stats)
        if status != 200 or not stats.tokens:
            return
        if route not in self._of_route:  # looking up a label costs more than counting
            self._of_route[route] = [
                each.labels(route)
                for each in (self._total, self._tokenization, self._queue, self._inference)
            ]
        times = (seconds, stats.tokenization, stats.queue, stats.inference)
        for histogram, spent in zip(self._of_route[route], times, strict=True):
            histogram.observe(spent)
        self._items.labels(stats.model).inc(stats.items)
        self._tokens.labels(stats.model).inc(stats.tokens)

    def observe_batch(self, model: str, lengths: Sequence[int], seconds: float) -> None:
        """Count a batch of sequences with ``lengths`` tokens each; thread-safe."""
        self._batch_sequences.labels(model).observe(len(lengths))
        self._batch_tokens.labels(model).observe(sum(lengths))
        self._batch_seconds.labels(model).observe(seconds)
        self._tei.observe_batch(lengths)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class TeiMetrics:
    """A collector in ``registry``; ``waiting`` returns the number of texts in the queue."""

    def __init__(self, registry: CollectorRegistry, waiting: Callable[[], float]) -> None:
        def histogram(name: str, what: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"te_{name}", what, buckets=buckets, registry=registry)

        self._durations = [
            histogram(f"request{step}_duration", "Seconds of a request.", _TEI_SECONDS)
            for step in _STEPS
        ]
        self._lengths = histogram("request_input_length", "Tokens of a text.", _powers(20))
        self._sizes = histogram("batch_next_size", "Texts of a batch.", _powers(13))
        self._tokens = histogram("batch_next_tokens", "Tokens of a batch.", _powers(21))
        Gauge("te_queue_size", "Texts in the queue.", registry=registry).set_function(waiting)
        self._counts: collections.Counter[tuple[str, tuple[tuple[str, str], ...]]] = (
            collections.Counter()
        )
        registry.register(self)

    def observe_request(self, route: str, status: int, seconds: float, stats: RequestStats) -> None:
        """Count a request if text-embeddings-inference counts requests for its route."""
        kind = _kind(route)
        if kind is None and not (route == "/" and stats.items):
            return
        method = (("method", "batch" if stats.items > 1 else "single"),)
        self._counts["te_request_count", method] += 1
        if kind:
            self._counts[f"te_{kind}_count", ()] += stats.items
        if status != 200:
            failure = _FAILURES.get(status, "validation")
            self._counts["te_request_failure", (("err", failure),)] += 1
            return
        self._counts["te_request_success", method] += 1
        if kind:
            self._counts[f"te_{kind}_success", ()] += stats.items
        spent = (seconds, stats.tokenization, stats.queue, stats.inference)
        for duration, each in zip(self._durations, spent, strict=True):
            duration.observe(each)

    def observe_batch(self, lengths: Sequence[int]) -> None:
        """Count a batch of texts with ``lengths`` tokens each; thread-safe."""
        for length in lengths:
            self._lengths.observe(length)
        self._sizes.observe(len(lengths))
        self._tokens.observe(sum(lengths))

    def collect(self) -> Iterable[Metric]:
        """The counters; prometheus_client's own would be called ``..._total``."""
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
