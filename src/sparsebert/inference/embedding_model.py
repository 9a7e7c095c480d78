"""Embeddings, with which texts are searched and compared: dense, sparse, or one per token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from sparsebert.checkpoint import Head, Pooling
from sparsebert.checkpoint.bge_m3 import check_converted
from sparsebert.checkpoint.embedding_kinds import EmbeddingKind, is_splade
from sparsebert.checkpoint.multi_vector import Task
from sparsebert.errors import InputError
from sparsebert.inference.batching import EngineCall, Floats, run
from sparsebert.inference.embeddings import (
    Embeddings,
    EmbeddingType,
    check_dimensions,
    check_embedding_type,
    converted,
    shortened,
)
from sparsebert.inference.loaded_model import FITTING, LoadedModel
from sparsebert.inference.multi_vector import check_task
from sparsebert.inference.pooling import POOLING_MODES, Pooler
from sparsebert.inference.sequences import Tokens
from sparsebert.inference.sparse import (
    SparseEmbedding,
    TokenLookup,
    TokenWeigher,
    sparse_embeddings,
)
from sparsebert.inference.texts import Text, Texts, as_string, as_texts

PoolingMode = Literal["mean", "cls", "max", "mean_sqrt_len", "weightedmean", "lasttoken"]


@dataclass(frozen=True, eq=False)
class HybridEmbedding:
    """A text's embeddings from one pass: ``dense`` float32 ``[width]``, ``sparse``, and ``tokens``.

    The last are one vector per token, float32 ``[tokens, width]``.
    """

    dense: Floats
    sparse: SparseEmbedding
    tokens: Floats


class EmbeddingModel(LoadedModel):
    """A model's embeddings."""

    def embed(
        self,
        texts: Text | Iterable[Text],
        *,
        batch_size: int = 32,
        pooling: PoolingMode | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        dimensions: int | None = None,
        output: EmbeddingType = "float32",
        strict: bool = False,
    ) -> Embeddings:
        """Sentence embeddings: ``[texts, width]``, or ``[width]`` for a single text.

        ``pooling`` and ``normalize`` (to length 1) default to the folder's sentence-transformers
        modules, or to the mean without normalisation if it has none. ``prompt``, or the folder's
        prompt called ``prompt_name`` (all are in `prompts`), is put before each text; the default
        is the folder's default prompt, as in sentence-transformers, and "" means none.
        ``dimensions`` truncates embeddings to that many numbers, for models trained for it
        (Kusupati et al. 2022, arXiv:2205.13147), and normalises them again if ``normalize``
        applies.

        ``output`` is the type of the result: "float32", "float16", "int8" (each embedding is scaled
        so that its largest number becomes 127 or -127, which changes cosines only by rounding) or
        "binary" (uint8, one bit per number, 1 if it is above 0; the first number is the highest bit
        of a byte).
        """
        check_embedding_type(output)
        pooler = self.pooler
        if pooling is not None:
            pooler = Pooler(self._pooled_by(pooling), self.config.hidden_size)
        check_dimensions(self.name, pooler.width, dimensions)
        unit = bool(self.pooling.normalize if normalize is None else normalize)
        before = self._prompt(prompt, prompt_name)
        given = as_texts(texts, before)
        skipped = self.prompt_tokens(before)
        call = pooler.call(normalize=unit, skipped=skipped)
        tokens = self._checked(self.tokenizer.encode(given, strict=strict))
        rows = run(self._encoder, call, tokens, batch_size, self.config.hidden_size)
        vectors = pooler.embeddings(call, rows, normalize=unit, skipped=skipped)
        vectors = shortened(vectors, dimensions, normalize=unit)
        found = converted(vectors, output)
        return found[0] if given.single else found

    def embed_sparse(
        self,
        texts: Text | Iterable[Text],
        *,
        task: Task | None = None,
        batch_size: int = 32,
        prompt: str | None = None,
        prompt_name: str | None = None,
        strict: bool = False,
    ) -> Any:
        """Sparse embeddings: a `SparseEmbedding` for each text, with token ids and their weights.

        A masked-LM model (SPLADE) computes them from its logits, as the folder's SpladePooling
        module says, or without one by log(1 + max(x, 0)) and the maximum over the text. A model
        with BGE-M3's sparse head gives each of the text's own tokens a weight. ``task``, "query" or
        "document", selects the folder's prompt for it and, if the folder has a Router, the route:
        inference-free models look up the tokens of queries in a table, and run the encoder on
        documents only. ``prompt`` and ``prompt_name`` are as in `embed`. Raises InputError for any
        other model.
        """
        if task is not None:
            check_task(task)
        if self.config.head is not Head.MASKED_LM and self.token_weigher is None:
            check_converted(self.path)
            kind, fitting = FITTING[self.config.head]
            raise InputError(f"{self.name} is {kind} and cannot embed_sparse: it can {fitting}.")
        own = None if task is None else self.prompts.of(task)
        given = as_texts(texts, self._prompt(prompt, prompt_name, own))
        route = self.sparse_route(task)
        if isinstance(route, TokenLookup):
            found = route.embeddings(given, strict=strict)
            return found[0] if given.single else found
        tokens = self._checked(self.tokenizer.encode(given, strict=strict))
        if isinstance(route, TokenWeigher):
            states = self._per_token("hidden", tokens, batch_size)
            found = [*map(route.embedding, states, tokens)]
        else:
            found = sparse_embeddings(self._encoder, route, tokens, batch_size)
        return found[0] if given.single else found

    def embed_tokens(
        self,
        texts: Text | Iterable[Text],
        *,
        task: Task = "document",
        batch_size: int = 32,
        prompt: str | None = None,
        prompt_name: str | None = None,
        strict: bool = False,
    ) -> Any:
        """One vector per token: a list of float32 ``[tokens, width]``, one array for a single text.

        A multi-vector model (ColBERT) projects them as its folder says. ``task``, "query" or
        "document", then sets the length to which texts are truncated, the tokens that expand a
        query, the tokens that are left out of a document (punctuation), and the default of
        the prompt (see `embed`). `max_similarities` scores documents for a query.
        For any other model, the vectors are the last hidden states.
        """
        check_task(task)
        embedder = self.token_vectors
        if embedder is None:
            check_converted(self.path)
            given = as_texts(texts, self._prompt(prompt, prompt_name))
            tokens = self.tokenizer.encode(given, strict=strict)
            found = self._per_token("hidden", tokens, batch_size)
            return found[0] if given.single else found
        given = as_texts(texts, self._prompt(prompt, prompt_name, self.task_prompt(task)))
        tokens = self._task_tokens(given, task, strict=strict)
        states = self._per_token("hidden", tokens, batch_size)
        vectors = [
            embedder.vectors(rows, each, task) for rows, each in zip(states, tokens, strict=True)
        ]
        return vectors[0] if given.single else vectors

    def embed_hybrid(
        self,
        texts: Text | Iterable[Text],
        *,
        batch_size: int = 32,
        prompt: str | None = None,
        prompt_name: str | None = None,
        strict: bool = False,
    ) -> Any:
        """Dense, sparse and multi-vector embeddings in one pass: a `HybridEmbedding` for each text.

        They are those of `embed`, `embed_sparse` and `embed_tokens`. Raises InputError for a model
        without BGE-M3's heads.
        """
        if not self.embeds_hybrid:
            check_converted(self.path)
            raise InputError(
                f"{self.name} cannot embed_hybrid: it lacks a head for sparse or for multi-vector "
                "embeddings, such as BGE-M3 has."
            )
        before = self._prompt(prompt, prompt_name)
        given, skipped = as_texts(texts, before), self.prompt_tokens(before)
        tokens = self.tokenizer.encode(given, strict=strict)
        states = self._per_token("hidden", tokens, batch_size)
        found = self.hybrid_embeddings(states, tokens, skipped)
        return found[0] if given.single else found

    @property
    def embeds_hybrid(self) -> bool:
        """Whether the model has BGE-M3's heads in addition to its dense embedding."""
        embedder = self.token_vectors
        return self.token_weigher is not None and embedder is not None and embedder.of.first > 0

    def hybrid_embeddings(
        self,
        states: Sequence[Floats],
        tokens: Sequence[Tokens],
        skipped: int | Sequence[int],
    ) -> list[HybridEmbedding]:
        """The embeddings of `embed_hybrid`, from texts' last hidden states ``[tokens, hidden]``.

        The first ``skipped`` tokens (a number for all texts, or one for each) are not pooled.
        """
        weigher, embedder = self.token_weigher, self.token_vectors
        assert weigher is not None
        assert embedder is not None
        self.pooling.check()
        call = EngineCall("hidden", per_token=True)
        dense = self.pooler.embeddings(
            call, states, normalize=self.pooling.normalize, skipped=skipped
        )
        return [
            HybridEmbedding(
                vector, weigher.embedding(rows, each), embedder.vectors(rows, each, "document")
            )
            for vector, rows, each in zip(dense, states, tokens, strict=True)
        ]

    @cached_property
    def embedding_kind(self) -> EmbeddingKind:
        """The kind of embedding that the model was made for, even if it is not supported."""
        if self.pooling.embeds:
            return "dense"
        if self._sparse_routes.tasks or is_splade(self.path):
            return "sparse"
        vectors = self.token_vectors
        return "tokens" if vectors is not None and not vectors.of.first else "dense"

    def task_prompt(self, task: Task) -> str:
        """The text before queries or documents whose tokens are embedded.

        A multi-vector model's own for the task, and the default prompt of any other model.
        """
        prompts = self.token_vectors.of.prompts if self.token_vectors else {}
        return prompts.get(task, self.prompts.default)

    def _task_tokens(self, texts: Texts, task: Task, *, strict: bool) -> list[Tokens]:
        """Sequences of a multi-vector model, truncated and expanded as the task requires."""
        embedder, positions = self.token_vectors, self.config.max_length
        assert embedder is not None
        embedder.of.check()
        limit = embedder.limit(task, self.max_length, positions)
        tokens = self.tokenizer.encode(texts, strict=strict, max_length=limit)
        return embedder.expanded(tokens, task, positions)

    def embedding_width(self, pooling: PoolingMode | None = None) -> int:
        """Length of an embedding, pooled as the folder says or by ``pooling``."""
        chosen = self.pooling if pooling is None else self._pooled_by(pooling)
        return chosen.width(self.config.hidden_size)

    def _pooled_by(self, mode: PoolingMode) -> Pooling:
        """The folder's pooling, but with one mode. Raises InputError if there cannot be such."""
        if mode not in POOLING_MODES:
            raise InputError(f"pooling must be one of {', '.join(POOLING_MODES)}, not {mode!r}.")
        modes, layers = self.pooling.modes, self.pooling.layers
        if len(modes) > 1 and any(each.kind in ("dense", "norm") for each in layers):
            raise InputError(
                f"pooling must be left out: {self.name} has layers behind its pooling, which take "
                f"{len(modes)} poolings ({', '.join(modes)}) at once."
            )
        return replace(self.pooling, modes=(mode,))

    def prompt_tokens(self, prompt: str) -> int:
        """How many tokens at the start of a text with ``prompt`` before it are not pooled.

        0, unless the folder's pooling excludes prompts: then, as in sentence-transformers, the
        tokens of the prompt by itself, with the special tokens before it.
        """
        if not prompt or self.pooling.include_prompt:
            return 0
        return self.tokenizer.count_before(prompt)

    def _prompt(self, prompt: str | None, name: str | None, default: str | None = None) -> str:
        """The text to put before each text: ``default`` (or the folder's) if neither is given."""
        if name is None:
            own = self.prompts.default if default is None else default
            return own if prompt is None else as_string(prompt, "prompt")
        if prompt is not None:
            raise InputError("pass either prompt or prompt_name, not both.")
        return self.prompts.named(as_string(name, "prompt_name"), self.name)
