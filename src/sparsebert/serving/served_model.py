"""A served model: loading, tokenisation off the event loop, and awaiting batched inference."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from sparsebert.checkpoint import Head
from sparsebert.checkpoint.multi_vector import Task
from sparsebert.checkpoint.tokenizer_settings import Side
from sparsebert.errors import CheckpointError, EngineError, InputError
from sparsebert.inference import Model, load
from sparsebert.inference.batching import EngineCall, Floats
from sparsebert.inference.sequences import LocatedTokens, Tokens
from sparsebert.inference.sparse import SparseEmbedding, TokenLookup
from sparsebert.inference.texts import Text, Texts
from sparsebert.serving.batching import Batcher, BatchObserver, Job, result_bytes, wake
from sparsebert.serving.errors import ClientGone, RequestError
from sparsebert.serving.stats import ModelStats, RequestStats


class Truncation(NamedTuple):
    """How a text that is too long is truncated: on which side, and to how many tokens.

    A ``side`` of None is the model folder's default. ``tokens`` include special tokens; None is the
    model's maximum.
    """

    side: Side | None = None
    tokens: int | None = None


class Inferred(NamedTuple):
    """The results of each engine call, and the tokens that they were computed from, in order."""

    results: list[list[Floats]]
    tokens: Sequence[Tokens]


_ADVICE = '"truncate": true'
_DISCONNECT_CHECK = 0.1  # seconds before a waiting request starts to watch for a disconnect

_EMBEDDING_ROUTES = ("/embed", "/embed_all", "/similarity", "/v1/embeddings")
_READING_ROUTES = ("/tokenize", "/decode")
_RERANKING_ROUTES = ("/rerank", "/v1/rerank", "/v2/rerank")


@dataclass(eq=False)
class ServedModel:
    """A model under the name that requests use for it, made by `load_models`.

    ``replicas`` share the model's weights; each has its own engine thread.
    """

    name: str
    replicas: Sequence[Model]

    def __post_init__(self) -> None:
        self.model = self.replicas[0]
        self.prompts = self.model.prompts
        self.stats = ModelStats()
        self._batcher: Batcher | None = None
        self._tokenizer_pool: ThreadPoolExecutor | None = None

    @property
    def head(self) -> Head:
        """The task head of the model."""
        return self.model.config.head

    @property
    def logits_width(self) -> int:
        """The number of logits that the head gives for a text or token."""
        config = self.model.config
        if self.head is Head.MASKED_LM:
            return config.vocab_size
        return 2 if self.head is Head.QUESTION else len(config.labels)

    @property
    def is_reranker(self) -> bool:
        """Whether it can rerank: a one-label classifier, as in TEI, or a multi-vector model."""
        return self.model.is_reranker

    @property
    def routes(self) -> list[str]:
        """The routes that the model's head supports."""
        routes = ["/embed_all", *_READING_ROUTES]
        if self.model.pooling.embeds:
            routes = [*_EMBEDDING_ROUTES, *_READING_ROUTES]
        if self.model.token_weigher is not None:
            routes.append("/embed_sparse")
        if self.model.embeds_hybrid:
            routes.append("/embed_hybrid")
        if self.head is Head.SEQUENCE:
            routes.append("/predict")
        if self.is_reranker:
            routes += _RERANKING_ROUTES
        own = {
            Head.QUESTION: ["/answer"],
            Head.TOKEN: ["/tag"],
            Head.MASKED_LM: ["/fill", "/embed_sparse"],
        }
        return [*routes, *own.get(self.head, [])]

    @property
    def alive(self) -> bool:
        """Whether all of its engine threads are running."""
        return self._batcher is not None and self._batcher.alive

    @property
    def waiting_tokens(self) -> int:
        """Tokens in the queue."""
        return self._batcher.waiting_tokens if self._batcher else 0

    @property
    def waiting_sequences(self) -> int:
        """Sequences in the queue."""
        return self._batcher.waiting_sequences if self._batcher else 0

    def start(
        self, tokenizer_pool: ThreadPoolExecutor, max_tokens: int, observe: BatchObserver
    ) -> None:
        """Start the engine threads; texts are tokenised in ``tokenizer_pool``.

        Raises EngineError if another server has started the model: its threads would never stop.
        """
        if self._batcher is not None:
            raise EngineError(
                f"{self.name} is already being served: load it again for another server."
            )
        encoders = [replica.encoder for replica in self.replicas]
        self._tokenizer_pool = tokenizer_pool

        def observed(*batch: Any) -> None:
            self.stats.batches += 1
            observe(*batch)

        self._batcher = Batcher(self.name, encoders, max_tokens, observed)

    def close(self) -> None:
        """Finish queued jobs and stop the engine threads."""
        if self._batcher is not None:
            self._batcher.close()
            self._batcher = None

    async def run(
        self,
        stats: RequestStats,
        calls: Sequence[EngineCall],
        tokenize: Callable[[], Sequence[Tokens]],
        disconnected: Callable[[], Any],
    ) -> Inferred:
        """Call ``tokenize`` in the pool, then run each engine call on all sequences.

        ``disconnected()`` must return an awaitable that completes when the client disconnects; what
        is still queued is then dropped and ClientGone raised. Also raises RequestError.
        """
        assert self._batcher is not None
        assert self._tokenizer_pool is not None
        batcher = self._batcher
        loop = asyncio.get_running_loop()
        jobs = [Job(call, loop.create_future()) for call in calls]
        whole = asyncio.gather(*(job.future for job in jobs))
        # Once the client is gone nobody asks for the exception, and asyncio would log that.
        whole.add_done_callback(lambda done: done.cancelled() or done.exception())

        def prepare() -> None:
            if all(job.future.done() for job in jobs):
                return
            begun = perf_counter()
            try:
                sequences = tokenize()
                stats.reservation.reserve(
                    sum(result_bytes(call, sequences, self._width(call)) for call in calls)
                )
            except BaseException as error:
                jobs[0].failed = _request_error(error)
                wake(loop, jobs[0].deliver)
                return
            stats.tokenization = max(stats.tokenization, perf_counter() - begun)
            stats.tokens += sum(map(len, sequences))
            for job in jobs:
                batcher.put(job, sequences)

        self._tokenizer_pool.submit(prepare)
        await _result_or_disconnect(whole, disconnected)
        results = whole.result()
        stats.queue = max(stats.queue, *(job.begun - job.queued for job in jobs))
        stats.inference = max(stats.inference, *(job.ended - job.begun for job in jobs))
        stats.sequences += len(jobs[0].sequences)
        return Inferred(results, jobs[0].sequences)

    async def in_tokenizer_pool(self, function: Callable[[], Any]) -> Any:
        """Run ``function()`` on a tokenisation thread, off the event loop."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._tokenizer_pool, function)
        except (InputError, CheckpointError) as error:
            raise _request_error(error) from error

    def tokenize(
        self,
        items: Sequence[Text | list[int]],
        name: Callable[[int], str],
        truncation: Truncation | None,
        advice: str,
        task: Task | None = None,
    ) -> list[Tokens]:
        """Tokenise texts and pairs, and add special tokens to lists of token ids.

        With a ``task``, a multi-vector model reads them as queries or documents.
        ``name(index)`` is what messages call the text at an index, and ``advice`` is the field with
        which a client asks for truncation. Raises RequestError: 413 for a text that is too long and
        may not be truncated, 422 for what the tokenizer or the vocabulary rejects, 424 if the
        tokenizer does not match the model.
        """
        most = self._longest(task)
        side, limit = (truncation or Truncation()).side, self._limit(truncation, most)
        texts, indices = _texts_among(items, name)
        found: list[Tokens] = []
        long: list[int] = []
        if texts.items:
            found, long = self.model.tokenizer.encode_truncated(texts, side=side, max_length=limit)
        if long and truncation is None:
            raise self._too_long(name(indices[long[0]]), advice, limit)
        sequences = dict(zip(indices, found, strict=True))
        for index, item in enumerate(items):
            if isinstance(item, list):
                sequences[index] = self._from_ids(item, name(index), truncation, advice, limit)
        checked = self._checked([sequences[index] for index in range(len(items))])
        embedder = self.model.token_vectors
        if task is None or embedder is None:
            return checked
        return embedder.expanded(checked, task, self.model.config.max_length)

    def _longest(self, task: Task | None) -> int:
        """The most tokens that the model reads of a text."""
        most, embedder = self.model.max_length, self.model.token_vectors
        if task is None or embedder is None:
            return most
        embedder.of.check()
        return embedder.limit(task, most, self.model.config.max_length)

    def look_up(
        self,
        lookup: TokenLookup,
        items: Sequence[Text | list[int]],
        name: Callable[[int], str],
        truncation: Truncation | None,
    ) -> list[SparseEmbedding]:
        """Sparse embeddings from a lookup table; errors as in `tokenize`."""
        texts, indices = _texts_among(items, name)
        side = (truncation or Truncation()).side
        found, cut = lookup.embeddings_truncated(texts, side=side)
        long = {indices[each] for each in cut}
        for index, item in enumerate(items):
            if isinstance(item, list):
                self._check_ids(item, name(index), lookup.vocabulary)
                long |= {index} if lookup.is_too_long(item) else set()
        if long and truncation is None:
            raise self._too_long(name(min(long)), _ADVICE, lookup.max_length or 0)
        embedded = iter(found)
        return [
            lookup.of_ids(lookup.truncated(item, side))
            if isinstance(item, list)
            else next(embedded)
            for item in items
        ]

    def locate(
        self,
        texts: Sequence[str],
        name: Callable[[int], str],
        truncation: Truncation | None,
        advice: str,
    ) -> list[LocatedTokens]:
        """As `tokenize`, for texts only, with the character positions of each token."""
        most = self.model.max_length
        side, limit = (truncation or Truncation()).side, self._limit(truncation, most)
        given = Texts([*texts], False, name)
        found, long = self.model.tokenizer.locate_truncated(given, side=side, max_length=limit)
        if long and truncation is None:
            raise self._too_long(name(long[0]), advice, limit)
        self._checked([each.tokens for each in found])
        return found

    def _width(self, call: EngineCall) -> int:
        """An upper bound on the width of a row of results."""
        if call.method in ("head", "sparse", "masked"):
            return self.logits_width
        embedder = self.model.token_vectors
        return max(self.model.config.hidden_size, embedder.width if embedder else 0)

    def _limit(self, truncation: Truncation | None, most: int) -> int:
        if truncation is None or truncation.tokens is None:
            return most
        least = self.model.tokenizer.least_length
        if not least <= truncation.tokens <= most:
            raise RequestError(
                422,
                f"truncate_prompt_tokens must be from {least} to {most}, the maximum of "
                f"{self.name}, or -1 for that maximum.",
                param="truncate_prompt_tokens",
            )
        return truncation.tokens

    def _from_ids(
        self, ids: list[int], name: str, truncation: Truncation | None, advice: str, limit: int
    ) -> Tokens:
        self._check_ids(ids, name, self.model.config.vocab_size)
        tokens = self.model.tokenizer.with_special_tokens(ids)
        if len(tokens) <= limit:
            return tokens
        if truncation is None:
            raise self._too_long(name, advice, limit)
        return self.model.tokenizer.with_special_tokens(ids, side=truncation.side, max_length=limit)

    def _check_ids(self, ids: list[int], name: str, vocabulary: int) -> None:
        for index, token in enumerate(ids):
            if not 0 <= token < vocabulary:
                raise RequestError(
                    422,
                    f"{name}[{index}] is {token}, outside the vocabulary of {self.name}, which has "
                    f"{vocabulary} tokens: token ids must come from this model's own tokenizer.",
                )

    def _too_long(self, name: str, advice: str, most: int) -> RequestError:
        return RequestError(
            413,
            f"{name} is longer than the {most} tokens that {self.name} takes: "
            f"shorten it, or send {advice} (or start the server with --auto-truncate) to truncate "
            "it.",
            param=name.split("[")[0],
            code="context_length_exceeded",
        )

    def _checked(self, sequences: list[Tokens]) -> list[Tokens]:
        """Check all ids, since the engine rejects a whole batch because of a single bad one."""
        vocabulary = self.model.config.vocab_size
        for sequence in sequences:
            if sequence.ids.max() >= vocabulary:
                raise RequestError(
                    424,
                    f"the tokenizer of {self.name} produces token id {sequence.ids.max()}, but the "
                    f"model has {vocabulary} tokens: they do not belong together.",
                )
        return sequences


def _texts_among(
    items: Sequence[Text | list[int]], name: Callable[[int], str]
) -> tuple[Texts, list[int]]:
    """The texts among texts and lists of token ids, and the index of each."""
    indices = [index for index, item in enumerate(items) if not isinstance(item, list)]
    texts = [item for item in items if not isinstance(item, list)]
    return Texts(texts, False, lambda place: name(indices[place])), indices


def _request_error(error: BaseException) -> RequestError:
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
    """Wait for the future; cancel it and raise ClientGone if the client disconnects first."""
    try:
        await asyncio.wait((future,), timeout=_DISCONNECT_CHECK)
        if future.done():
            return
        watch = asyncio.ensure_future(disconnected())
        await asyncio.wait((future, watch), return_when=asyncio.FIRST_COMPLETED)
        if not watch.done():
            watch.cancel()
    except asyncio.CancelledError:  # the server is shutting down
        future.cancel()
        raise
    if not future.done():
        future.cancel()
        raise ClientGone


def load_models(
    models: Sequence[str | Path],
    *,
    threads: int | None = None,
    workers: int = 1,
    max_length: int | None = None,
    compute: str | None = None,
    copied: bool = True,
) -> list[ServedModel]:
    """Load each ``MODEL`` or ``NAME=MODEL``, where MODEL is a folder or a hub id.

    NAME is what requests use; by default, it is the folder's own name or the hub id. ``workers`` is
    the number of engine threads of each model, and ``threads`` the number of CPU threads of each of
    them. The other options are those of `sparsebert.load`, except that weights are copied by
    default, so that changes to the files cannot affect a running server. Raises InputError for a
    duplicate name, and what `sparsebert.load` raises.
    """
    if not models:
        raise InputError("no model to load: pass at least one.")
    options = {"threads": threads, "max_length": max_length, "compute": compute, "copied": copied}
    served = [_load(name, model, workers, **options) for name, model in map(_parse_name, models)]
    names = [model.name for model in served]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"two models are called {name}: give them other names, as in first=FOLDER."
            )
    return served


def _parse_name(model: str | Path) -> tuple[str | None, str | Path]:
    text = str(model)
    if isinstance(model, Path) or "=" not in text or Path(text).exists():
        return None, model
    name, _, rest = text.partition("=")
    if not name or not rest:
        raise InputError(f"{text} is not a model: write NAME=FOLDER or FOLDER.")
    return name, rest


def _load(name: str | None, model: str | Path, workers: int, **options: Any) -> ServedModel:
    first = load(model, **options)
    others = [first.with_own_engine() for _ in range(workers - 1)]
    return ServedModel(name or first.name, [first, *others])
