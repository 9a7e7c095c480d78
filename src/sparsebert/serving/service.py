"""The state of one server: its options, models, admission control and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from fastapi import Request

from sparsebert.errors import InputError
from sparsebert.serving.admission import Admission
from sparsebert.serving.errors import RequestError
from sparsebert.serving.metrics import Metrics
from sparsebert.serving.options import ServingOptions
from sparsebert.serving.served_model import ServedModel


class Service:
    """Shared by all routes, started and closed with the server. The first model is the default."""

    def __init__(self, models: Sequence[ServedModel], options: ServingOptions) -> None:
        if not models:
            raise InputError("no model to serve: pass at least one.")
        self.models = {model.name: model for model in models}
        if len(self.models) < len(models):
            raise InputError("two models have the same name: give each its own name.")
        for model in models:
            longest = model.model.max_length
            if options.max_batch_tokens < longest:
                raise InputError(
                    f"a batch of {options.max_batch_tokens} tokens cannot hold the longest text "
                    f"that {model.name} accepts ({longest} tokens): raise --max-batch-tokens or "
                    "lower --max-length."
                )
        self.default = models[0]
        self.options = options
        self.admission = Admission(options.max_concurrent_requests, options.max_bytes_in_flight)
        self.stopping = False
        self.metrics = Metrics(self.admission, self.models.values())
        self._tokenizer_pool: ThreadPoolExecutor | None = None

    def start(self) -> None:
        """Start all threads; call this in the serving process, after any fork."""
        self._tokenizer_pool = ThreadPoolExecutor(self.options.tokenization_workers, "tokenization")
        for name, model in self.models.items():
            observe = partial(self.metrics.observe_batch, name)
            model.start(self._tokenizer_pool, self.options.max_batch_tokens, observe)

    def close(self) -> None:
        """Finish what is in flight and stop all threads."""
        self.stopping = True
        if self._tokenizer_pool is not None:
            self._tokenizer_pool.shutdown()
        for model in self.models.values():
            model.close()

    @property
    def healthy(self) -> bool:
        return not self.stopping and all(model.alive for model in self.models.values())

    def model(self, name: str | None, route: str) -> ServedModel:
        """The model that answers a request for ``route``.

        A single model answers to any name, as in text-embeddings-inference. Of several, it is the
        one that the request names; without a name, the first that supports the route, or the first
        of all if none does. Raises RequestError 404.
        """
        if len(self.models) == 1:
            return self.default
        if name is None:
            fitting = (model for model in self.models.values() if route in model.routes)
            return next(fitting, self.default)
        return self.named(name)

    def named(self, name: str) -> ServedModel:
        """The model of that name; RequestError 404 if there is none."""
        if name not in self.models:
            raise RequestError(
                404,
                f"this server has no model of that name; it has {', '.join(self.models)}.",
                param="model",
                code="model_not_found",
            )
        return self.models[name]

    def check_count(self, count: int, name: str) -> None:
        """RequestError for an empty list (422) or one with too many entries (413)."""
        if count == 0:
            raise RequestError(422, f"{name} is empty: send at least one.", param=name)
        most = self.options.max_client_batch_size
        if count > most:
            raise RequestError(
                413,
                f"{name} has {count} entries: a request may have at most {most} "
                "(--max-client-batch-size).",
                param=name,
                code="array_above_max_length",
            )

    def check_characters(self, count: int, name: str) -> None:
        """RequestError 413 for a text with too many characters."""
        most = self.options.max_input_characters
        if count > most:
            raise RequestError(
                413,
                f"{name} has {count} characters: a text may have at most {most} "
                "(--max-input-characters) unless it is to be truncated.",
                param=name.split("[")[0],
                code="string_above_max_length",
            )


def service_of(request: Request) -> Service:
    """The service that answers a request."""
    service: Service = request.app.state.service
    return service
