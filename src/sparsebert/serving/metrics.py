"""Prometheus metrics of one server, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from sparsebert.serving.admission import Admission
from sparsebert.serving.served_model import ServedModel
from sparsebert.serving.tei_metrics import TeiMetrics
from sparsebert.serving.work import Work

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Metrics:
    """What the server did, and what its process takes.

    Labels are few: routes, statuses and the names of its models.
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
        self._total = seconds("request", "From a request's first byte to its answer.")
        self._tokenization = seconds("tokenization", "Turning a request's texts into tokens.")
        self._queue = seconds("queue", "Waiting for the engine.")
        self._inference = seconds("inference", "From a request's first batch to its last.")
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
        self._batch_seconds = batch("seconds", "A batch in the engine.", _SECONDS)

        def gauge(name: str, what: str, value: Callable[[], float]) -> None:
            Gauge(f"sparsebert_{name}", what, registry=registry).set_function(value)

        gauge("requests_in_flight", "Requests being answered.", lambda: admission.in_flight)
        gauge(
            "bytes_in_flight",
            "Bytes of bodies, results and unread answers.",
            lambda: admission.bytes,
        )
        gauge(
            "waiting_tokens",
            "Tokens that wait for the engine.",
            lambda: sum(each.waiting_tokens for each in models),
        )

    def observe_request(self, route: str, status: int, seconds: float, work: Work) -> None:
        """Count an answered request; its times only where the engine was asked."""
        self._requests.labels(route, str(status)).inc()
        self._tei.observe_request(route, status, seconds, work)
        if status != 200 or not work.tokens:
            return
        if route not in self._of_route:  # looking a label up costs more than counting
            self._of_route[route] = [
                each.labels(route)
                for each in (self._total, self._tokenization, self._queue, self._inference)
            ]
        times = (seconds, work.tokenization, work.queue, work.inference)
        for histogram, spent in zip(self._of_route[route], times, strict=True):
            histogram.observe(spent)
        self._items.labels(work.model).inc(work.items)
        self._tokens.labels(work.model).inc(work.tokens)

    def observe_batch(self, model: str, lengths: Sequence[int], seconds: float) -> None:
        """Count a batch that went through the engine, of so many tokens each; from any thread."""
        self._batch_sequences.labels(model).observe(len(lengths))
        self._batch_tokens.labels(model).observe(sum(lengths))
        self._batch_seconds.labels(model).observe(seconds)
        self._tei.observe_batch(lengths)

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)
