"""A loaded model with its engine threads: texts in, rows out, awaited by a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter, time
from typing import Any, NamedTuple

from sparsebert.checkpoint import Head
from sparsebert.errors import CheckpointError, EngineError, InputError
from sparsebert.inference import Model
from sparsebert.inference.texts import Text, Texts
from sparsebert.inference.tokenizer_class import Side
from sparsebert.inference.tokenizing import Tokens
from sparsebert.serving.batching import Batcher, BatchObserver, EngineCall, Floats, Job, wake
from sparsebert.serving.errors import ClientGone, RequestError
from sparsebert.serving.work import Work


class Cut(NamedTuple):
    """How a text that is too long is cut: at which end, and to how many tokens.

    ``side`` None is the folder's own choice. ``tokens`` count special tokens too; None is as many
    as the model takes.
    """

    side: Side | None = None
    tokens: int | None = None


@dataclass
class Statistics:
    """What a model has answered since the server began; times are seconds."""

    requests: int = 0
    failed: int = 0
    sequences: int = 0
    batches: int = 0
    tokenization: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    total: float = 0.0
    last: float = 0.0  # when: seconds since 1970


_PATIENCE = 0.1  # seconds before a waiting request looks whether its client is still there

_EMBEDDING_ROUTES = ("/embed", "/embed_all", "/similarity", "/v1/embeddings")
_READING_ROUTES = ("/tokenize", "/decode")
_RERANKING_ROUTES = ("/rerank", "/v1/rerank", "/v2/rerank")


@dataclass(eq=False)
class ServedModel:
    """A model under the name that requests call it by; `load_models` makes it.

    ``replicas`` are loads of the same folder, an engine thread each.
    """

    name: str
    replicas: Sequence[Model]

    def __post_init__(self) -> None:
        self.model = self.replicas[0]
        self.prompts = self.model.prompts
        self.statistics = Statistics()
        self._batcher: Batcher | None = None
        self._readers: ThreadPoolExecutor | None = None

    @property
    def head(self) -> Head:
        return self.model.config.head

    @property
    def is_reranker(self) -> bool:
        """Whether it scores a query with a text, as TEI has it: a classifier with one label."""
        return self.head is Head.SEQUENCE and len(self.model.config.labels) == 1

    @property
    def routes(self) -> list[str]:
        """The routes that this model's head can answer."""
        routes = [*_EMBEDDING_ROUTES, *_READING_ROUTES]
        if self.head is Head.SEQUENCE:
            routes.append("/predict")
        if self.is_reranker:
            routes += _RERANKING_ROUTES
        if self.head is Head.QUESTION:
            routes.append("/answer")
        return routes

    @property
    def alive(self) -> bool:
        """Whether its engine threads work."""
        return self._batcher is not None and self._batcher.alive

    @property
    def waiting_tokens(self) -> int:
        return self._batcher.waiting_tokens if self._batcher else 0

    @property
    def waiting_sequences(self) -> int:
        return self._batcher.waiting_sequences if self._batcher else 0

    def start(self, readers: ThreadPoolExecutor, max_tokens: int, observe: BatchObserver) -> None:
        """Start its engine threads. ``readers`` turn texts into tokens.

        Raises EngineError if another server has started it: nobody would end those threads.
        """
        if self._batcher is not None:
            raise EngineError(f"{self.name} is served already: load it anew for another server.")
        encoders = [replica.encoder for replica in self.replicas]
        self._readers = readers

        def observed(*batch: Any) -> None:
            self.statistics.batches += 1
            observe(*batch)

        self._batcher = Batcher(self.name, encoders, max_tokens, observed)

    def close(self) -> None:
        """Finish what waits and end the engine threads."""
        if self._batcher is not None:
            self._batcher.close()
            self._batcher = None

    async def run(
        self,
        work: Work,
        calls: Sequence[EngineCall],
        read: Callable[[], Sequence[Tokens]],
        disconnected: Callable[[], Any],
    ) -> list[list[Floats]]:
        """For each call its rows for the sequences that ``read`` gives, off the event loop.

        ``disconnected()`` must give an awaitable that ends when the client has gone; then what is
        still in the queue is dropped, and ClientGone raised.
        """
        assert self._batcher is not None
        assert self._readers is not None
        batcher = self._batcher
        loop = asyncio.get_running_loop()
        jobs = [Job(call, loop.create_future()) for call in calls]
        whole = asyncio.gather(*(job.future for job in jobs))

        def prepare() -> None:
            if all(job.future.done() for job in jobs):
                return
            begun = perf_counter()
            try:
                sequences = read()
                width = self.model.config.hidden_size
                work.claim.hold(sum(call.result_bytes(sequences, width) for call in calls))
            except BaseException as error:
                jobs[0].failed = _refusal(error)
                wake(loop, jobs[0].deliver)
                return
            work.tokenization = max(work.tokenization, perf_counter() - begun)
            work.tokens += sum(map(len, sequences))
            for job in jobs:
                batcher.put(job, sequences)

        self._readers.submit(prepare)
        try:
            await _result_or_disconnect(whole, disconnected)
            rows = whole.result()
        except RequestError:
            self.statistics.failed += 1
            raise
        work.queue = max(work.queue, *(job.begun - job.queued for job in jobs))
        work.inference = max(work.inference, *(job.ended - job.begun for job in jobs))
        self._count(work, len(jobs[0].sequences))
        return rows

    def _count(self, work: Work, sequences: int) -> None:
        counted = self.statistics
        counted.requests += 1
        counted.sequences += sequences
        counted.tokenization += work.tokenization
        counted.queue += work.queue
        counted.inference += work.inference
        counted.total += perf_counter() - work.started
        counted.last = time()

    async def read(self, function: Callable[[], Any]) -> Any:
        """``function()`` off the event loop, on a tokenisation thread."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, function)
        except (InputError, CheckpointError) as error:
            raise _refusal(error) from error

    def sequences(
        self,
        items: Sequence[Text | list[int]],
        name: Callable[[int], str],
        cut: Cut | None,
        advice: str,
    ) -> list[Tokens]:
        """Texts, pairs and lists of token ids, ready for the engine.

        ``name`` is what messages call the text at a place, and ``advice`` what a client sends to
        have it cut. Raises RequestError: 413 for one that is too long and may not be cut, 422 for
        what the tokenizer or the vocabulary refuses.
        """
        side, limit = (cut or Cut()).side, self._limit(cut)
        places = [place for place, item in enumerate(items) if not isinstance(item, list)]
        texts = Texts([item for item in items if not isinstance(item, list)], False, name(0))
        found: list[Tokens] = []
        long: list[int] = []
        if texts.items:
            found, long = self.model.tokenizer.cut_to_fit(texts, side=side, max_length=limit)
        if long and cut is None:
            raise self._too_long(name(places[long[0]]), advice)
        sequences = dict(zip(places, found, strict=True))
        for place, item in enumerate(items):
            if isinstance(item, list):
                sequences[place] = self._from_ids(item, name(place), cut, advice)
        return self._checked([sequences[place] for place in range(len(items))])

    def _limit(self, cut: Cut | None) -> int:
        most = self.model.max_length
        if cut is None or cut.tokens is None:
            return most
        least = self.model.tokenizer.least_length
        if not least <= cut.tokens <= most:
            raise RequestError(
                422,
                f"truncate_prompt_tokens must be from {least} to {most}, which is what {self.name} "
                "takes, or -1 for that.",
                param="truncate_prompt_tokens",
            )
        return cut.tokens

    def _from_ids(self, ids: list[int], name: str, cut: Cut | None, advice: str) -> Tokens:
        vocabulary = self.model.config.vocab_size
        for place, token in enumerate(ids):
            if not 0 <= token < vocabulary:
                raise RequestError(
                    422,
                    f"{name}[{place}] is {token}, outside the vocabulary of {self.name}, which has "
                    f"{vocabulary} tokens: token ids must be those of this model's own tokenizer.",
                )
        tokens = self.model.tokenizer.frame(ids)
        limit = self._limit(cut)
        if len(tokens) <= limit:
            return tokens
        if cut is None:
            raise self._too_long(name, advice)
        return self.model.tokenizer.frame(ids, side=cut.side, max_length=limit)

    def _too_long(self, name: str, advice: str) -> RequestError:
        return RequestError(
            413,
            f"{name} is longer than the {self.model.max_length} tokens that {self.name} takes: "
            f"shorten it, or send {advice} (or start the server with --auto-truncate) to have it "
            "cut.",
            param=name.split("[")[0],
            code="context_length_exceeded",
        )

    def _checked(self, sequences: list[Tokens]) -> list[Tokens]:
        """The engine refuses a whole batch for one bad id: none may reach it."""
        vocabulary = self.model.config.vocab_size
        for sequence in sequences:
            if sequence.ids.max() >= vocabulary:
                raise RequestError(
                    424,
                    f"the tokenizer of {self.name} gives token id {sequence.ids.max()}, and the "
                    f"model has {vocabulary} tokens: they do not belong together.",
                )
        return sequences


def _refusal(error: BaseException) -> RequestError:
    if isinstance(error, RequestError):
        return error
    if isinstance(error, InputError):
        return RequestError(422, str(error), kind="Tokenizer")
    if isinstance(error, CheckpointError):
        return RequestError(424, str(error))
    return RequestError(422, f"the tokenizer failed: {str(error).rstrip('.')}.", kind="Tokenizer")


async def _result_or_disconnect(
    future: asyncio.Future[list[list[Floats]]], disconnected: Callable[[], Any]
) -> None:
    """Wait for the future; cancel it and raise ClientGone if the client goes first."""
    try:
        await asyncio.wait((future,), timeout=_PATIENCE)
        if future.done():
            return
        watch = asyncio.ensure_future(disconnected())
        await asyncio.wait((future, watch), return_when=asyncio.FIRST_COMPLETED)
        if not watch.done():
            watch.cancel()
    except asyncio.CancelledError:  # the server stops waiting for its requests
        future.cancel()
        raise
    if not future.done():
        future.cancel()
        raise ClientGone
