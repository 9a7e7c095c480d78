"""A loaded model with its engine threads: texts in, rows out, awaited by a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

from sparsebert.checkpoint import Head
from sparsebert.errors import CheckpointError, InputError
from sparsebert.inference import Model
from sparsebert.inference.texts import Text, Texts
from sparsebert.inference.tokenizing import Tokens
from sparsebert.serving.batching import Batcher, BatchObserver, EngineCall, Floats, Job, wake
from sparsebert.serving.errors import ClientGone, RequestError
from sparsebert.serving.work import Work

Side = Literal["right", "left"]

_PATIENCE = 0.1  # seconds before a waiting request looks whether its client is still there

_EMBEDDING_ROUTES = ("/embed", "/embed_all", "/similarity", "/v1/embeddings")
_READING_ROUTES = ("/tokenize", "/decode")


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
            routes.append("/rerank")
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

    def start(self, readers: ThreadPoolExecutor, max_tokens: int, observe: BatchObserver) -> None:
        """Start its engine threads. ``readers`` turn texts into tokens."""
        encoders = [replica.encoder for replica in self.replicas]
        self._readers = readers
        self._batcher = Batcher(self.name, encoders, max_tokens, observe)

    def close(self) -> None:
        """Finish what waits and end the engine threads."""
        if self._batcher is not None:
            self._batcher.close()
            self._batcher = None

    async def run(
        self,
        work: Work,
        call: EngineCall,
        read: Callable[[], Sequence[Tokens]],
        disconnected: Callable[[], Any],
    ) -> list[Floats]:
        """The engine's rows for the sequences that ``read`` gives, which runs off the event loop.

        ``disconnected()`` must give an awaitable that ends when the client has gone; then what is
        still in the queue is dropped, and ClientGone raised.
        """
        assert self._batcher is not None
        assert self._readers is not None
        batcher = self._batcher
        loop = asyncio.get_running_loop()
        job = Job(call, loop.create_future())

        def prepare() -> None:
            if job.future.done():
                return
            begun = perf_counter()
            try:
                sequences = read()
            except BaseException as error:
                job.failed = _refusal(error)
                wake(loop, job.deliver)
                return
            work.tokenization = max(work.tokenization, perf_counter() - begun)
            work.tokens += sum(map(len, sequences))
            batcher.put(job, sequences)

        self._readers.submit(prepare)
        await _result_or_disconnect(job.future, disconnected)
        work.queue = max(work.queue, job.begun - job.queued)
        work.inference = max(work.inference, job.ended - job.begun)
        return job.future.result()

    async def read(self, function: Callable[[], Any]) -> Any:
        """``function()`` off the event loop, on a tokenisation thread."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, function)
        except (InputError, CheckpointError) as error:
            raise _refusal(error) from error

    def sequences(
        self, items: Sequence[Text | list[int]], label: str, *, truncate: bool, side: Side
    ) -> list[Tokens]:
        """Texts, pairs and lists of token ids, ready for the engine.

        ``label`` is how messages call the list. Raises RequestError: 413 for one that is too long
        and may not be cut, 422 for what the tokenizer or the vocabulary refuses.
        """
        texts = Texts([item for item in items if not isinstance(item, list)], False, label)
        found, cut = self.model.tokenizer.cut_to_fit(texts, side=side) if texts.items else ([], [])
        if cut and not truncate:
            places = [place for place, item in enumerate(items) if not isinstance(item, list)]
            raise self._too_long(f"{label}[{places[cut[0]]}]")
        if len(texts.items) == len(items):
            return self._checked(found)
        made = iter(found)
        return self._checked(
            [
                self._from_ids(item, f"{label}[{place}]", truncate, side)
                if isinstance(item, list)
                else next(made)
                for place, item in enumerate(items)
            ]
        )

    def _from_ids(self, ids: list[int], name: str, truncate: bool, side: Side) -> Tokens:
        vocabulary = self.model.config.vocab_size
        for place, token in enumerate(ids):
            if not 0 <= token < vocabulary:
                raise RequestError(
                    422,
                    f"{name}[{place}] is {token}, outside the vocabulary of {self.name}, which has "
                    f"{vocabulary} tokens: token ids must be those of this model's own tokenizer.",
                )
        tokens = self.model.tokenizer.frame(ids)
        over = len(tokens) - self.model.max_length
        if over > 0:
            if not truncate:
                raise self._too_long(name)
            kept = ids[over:] if side == "left" else ids[: len(ids) - over]
            tokens = self.model.tokenizer.frame(kept)
        return tokens

    def _too_long(self, name: str) -> RequestError:
        return RequestError(
            413,
            f"{name} is longer than the {self.model.max_length} tokens that {self.name} takes: "
            'shorten it, or send "truncate": true (or start the server with --auto-truncate) to '
            "have it cut.",
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
    future: asyncio.Future[list[Floats]], disconnected: Callable[[], Any]
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
