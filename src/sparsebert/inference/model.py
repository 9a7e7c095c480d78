"""A loaded model: the native engine with its folder's tokenizer, pooling and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sparsebert.checkpoint import EncoderConfig, Head, Pooling, Prompts, ScoreFunction
from sparsebert.checkpoint.pooling import SparsePooling
from sparsebert.checkpoint.publishing import copy_model, push_to_hub
from sparsebert.checkpoint.tokenizer import check_ids
from sparsebert.engine import Encoder
from sparsebert.errors import CheckpointError, InputError
from sparsebert.inference.answering import as_questions, best_answers, window_length
from sparsebert.inference.batching import EngineCall, Floats, run_per_text, run_per_token
from sparsebert.inference.embeddings import (
    Embeddings,
    EmbeddingType,
    check_dimensions,
    check_embedding_type,
    converted,
    shortened,
)
from sparsebert.inference.entities import Aggregation, check_aggregation, joined_entities
from sparsebert.inference.labelling import (
    FilledMask,
    RankedDocument,
    apply_function,
    check_count,
    label_scores,
    softmax,
    tagged_tokens,
)
from sparsebert.inference.pooling import POOLING_MODES, Pooler
from sparsebert.inference.sequences import Tokens, as_token_sequences
from sparsebert.inference.sparse import sparse_embeddings
from sparsebert.inference.texts import Text, as_texts
from sparsebert.inference.tokenizing import TextTokenizer, usual_stride
from sparsebert.packing.weights import Weights, bytes_held, describe_storage

PoolingMode = Literal["mean", "cls", "max", "mean_sqrt_len", "weightedmean", "lasttoken"]

# What a model with this head is called, and the methods and commands that fit it.
_FITTING = {
    Head.ENCODER: ("an encoder without a head", "embed"),
    Head.SEQUENCE: ("a sequence-classification model", "classify or embed"),
    Head.QUESTION: ("a question-answering model", "answer or embed"),
    Head.TOKEN: ("a token-classification model", "tag or embed"),
    Head.MASKED_LM: ("a masked-lm model", "fill, embed_sparse or embed"),
}
_NEEDED = {
    "classify": Head.SEQUENCE,
    "answer": Head.QUESTION,
    "tag": Head.TOKEN,
    "fill": Head.MASKED_LM,
}


class Model:
    """A loaded model; `load` makes it. It may be used from many Python threads at once.

    Texts are strings, or pairs of strings that are read together (a premise and a hypothesis).
    Every method that takes texts takes one (and gives one result) or any iterable of them (and
    gives a list or an array with one result a text). Texts longer than `max_length` tokens are cut
    with a TruncationWarning, or raise InputError with ``strict``. ``path`` is the folder that the
    model came from (for a hub id, in the hub's cache), ``prompts`` are the texts that it has set
    before texts to embed, and ``score_function`` is what makes scores of a classifier's logits.

    Copies share one engine. Pickled, a model is its folder and the options it was loaded with,
    from which another process loads it again.
    """

    def __init__(
        self,
        name: str,
        config: EncoderConfig,
        pooling: Pooling | None,
        tokenizer: TextTokenizer | None,
        encoder: Encoder,
        weights: Weights,
        path: Path,
        prompts: Prompts | None = None,
        score_function: ScoreFunction = "softmax",
        load_again: Callable[[str, Path], Model] | None = None,
        sparse_pooling: SparsePooling | None = None,
    ) -> None:
        self.name = name
        self.path = path
        self.config = config
        self.pooling = pooling or Pooling()
        self.sparse_pooling = sparse_pooling or SparsePooling()
        self.pooler = Pooler(self.pooling, config.hidden_size)
        self.prompts = prompts or Prompts()
        self.score_function = score_function
        self._load_again = load_again
        self.nbytes = bytes_held(weights)
        self._storage = describe_storage(weights)
        self._tokenizer = tokenizer
        self._encoder = encoder

    @property
    def threads(self) -> int:
        """Threads the engine works with."""
        return int(self._encoder.threads)

    @property
    def instruction_set(self) -> str:
        """The engine's kernels in use, such as avx512-vnni or avx512-amx."""
        return str(self._encoder.instruction_set)

    @property
    def kernel(self) -> str | None:
        """The engine's kernel for int8 layers and why it was chosen, or None without a choice.

        Computing in bf16, the instructions that it has for that, or that there are none.
        """
        return self._encoder.kernel

    @property
    def max_length(self) -> int:
        """Tokens of a text that the model reads, special tokens included."""
        return self._tokenizer.max_length if self._tokenizer else self.config.max_length

    @property
    def storage(self) -> str:
        """How the encoder's matrices are kept, for example ``1:2 int8`` or ``dense fp32``."""
        return self._storage

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer; CheckpointError for a folder without tokenizer files."""
        return self._text_tokenizer()

    @property
    def encoder(self) -> Encoder:
        """The native engine with this model's weights."""
        return self._encoder

    def __repr__(self) -> str:
        shape = f"{self.config.num_hidden_layers}x{self.config.hidden_size}"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        compute = f" computed in {self._encoder.compute}" if self._encoder.compute else ""
        return (
            f"<sparsebert.Model {self.name}: {self.config.head.value}, {shape}, "
            f"{self._storage}{compute}, {self.nbytes / 1e6:.1f} MB, "
            f"{self.instruction_set}, {threads}>"
        )

    def __copy__(self) -> Model:
        made = Model.__new__(Model)
        made.__dict__.update(self.__dict__)
        return made

    def __deepcopy__(self, _memo: dict[int, Any]) -> Model:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._load_again is None:
            raise TypeError(f"{self!r} was not made by load() and cannot be pickled")
        return self._load_again, (self.name, self.path.absolute())

    def require(self, verb: str) -> None:
        """InputError, saying what fits, if the model's head cannot classify, answer, tag, fill."""
        if self.config.head is not _NEEDED[verb]:
            kind, fitting = _FITTING[self.config.head]
            raise InputError(f"{self.name} is {kind} and cannot {verb}: it can {fitting}.")

    def embed(
        self,
        texts: Text | Iterable[Text],
        *,
        batch_size: int = 32,
        pooling: PoolingMode | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        dimensions: int | None = None,
        output: EmbeddingType = "float32",
        strict: bool = False,
    ) -> Embeddings:
        """Sentence embeddings: ``[texts, hidden]``, or ``[hidden]`` for a single text.

        ``pooling`` and ``normalize`` (to length 1) default to the folder's sentence-transformers
        modules, and to the mean, not normalised, where it has none. ``prompt`` is put before each
        text: by default the folder's own (`prompts` has it, and those it knows by name), as in
        sentence-transformers; "" puts none. ``dimensions`` keeps the first so many numbers of each
        (of a model trained for it: Kusupati et al. 2022, arXiv:2205.13147), of length 1 again if
        normalised. ``output`` is their type: "float32", "float16", "int8" (each embedding scaled
        so that its largest number is 127 or -127, which leaves cosines as they are) or "binary"
        (uint8: a bit a number, 1 where it is above 0, the first the highest of a byte).
        """
        check_embedding_type(output)
        pooler = self.pooler
        if pooling is not None:
            if pooling not in POOLING_MODES:
                raise InputError(
                    f"pooling must be one of {', '.join(POOLING_MODES)}, not {pooling!r}."
                )
            pooler = Pooler(replace(self.pooling, modes=(pooling,)), self.config.hidden_size)
        check_dimensions(self.name, pooler.width, dimensions)
        unit = bool(self.pooling.normalize if normalize is None else normalize)
        before = self._prompt(prompt)
        given = as_texts(texts, before)
        tokenizer = self._text_tokenizer()
        skipped = self.prompt_tokens(before)
        call = pooler.call(normalize=unit, skipped=skipped)
        tokens = self._checked(tokenizer.encode(given, strict=strict))
        width = self.config.hidden_size
        rows: Any = (
            run_per_token(self._encoder, call, tokens, batch_size)
            if call.per_token
            else run_per_text(self._encoder, call, tokens, batch_size, width)
        )
        vectors = pooler.embeddings(call, rows, normalize=unit, skipped=skipped)
        vectors = shortened(vectors, dimensions, normalize=unit)
        found = converted(vectors, output)
        return found[0] if given.single else found

    def embed_sparse(
        self,
        texts: Text | Iterable[Text],
        *,
        batch_size: int = 32,
        prompt: str | None = None,
        strict: bool = False,
    ) -> Any:
        """Sparse embeddings (SPLADE) by a masked-LM model: a `SparseEmbedding` for each text.

        It has the ids of the vocabulary's tokens that matter to the text, and their weights. How
        they are made of the logits, the folder's SpladePooling module says; without one, by
        log(1 + max(x, 0)) and the largest over the text. ``prompt`` is as in `embed`.
        """
        if self.config.head is not Head.MASKED_LM:
            kind, fitting = _FITTING[self.config.head]
            raise InputError(f"{self.name} is {kind} and cannot embed_sparse: it can {fitting}.")
        given = as_texts(texts, self._prompt(prompt))
        tokens = self._checked(self._text_tokenizer().encode(given, strict=strict))
        found = sparse_embeddings(self._encoder, self.sparse_pooling, tokens, batch_size)
        return found[0] if given.single else found

    def classify(
        self,
        texts: Text | Iterable[Text],
        *,
        top_k: int | None = None,
        batch_size: int = 32,
        strict: bool = False,
    ) -> Any:
        """Labels with scores, best first: a list for each text, ``[{"label", "score"}, ...]``.

        ``top_k`` keeps the best only. The score is a probability (each label's own for a
        multi-label model or one with a single label), and the predicted value for a regression
        model or where the folder names no activation for it (Identity, as some rerankers do).
        """
        self.require("classify")
        check_count("top_k", top_k)
        given = as_texts(texts)
        logits = self._text_logits(self._text_tokenizer().encode(given, strict=strict), batch_size)
        scores = apply_function(logits, self.score_function)
        found = label_scores(scores, self.config.labels, top_k)
        return found[0] if given.single else found

    def answer(
        self,
        question: str | Sequence[str],
        context: str | Sequence[str],
        *,
        top_k: int = 1,
        max_length: int | None = None,
        doc_stride: int | None = None,
        max_answer_length: int = 30,
        n_best: int = 20,
        batch_size: int = 32,
    ) -> Any:
        """What in ``context`` answers ``question``: ``{"text", "start", "end", "score"}``.

        ``start`` and ``end`` count characters of the context. A context that does not fit into
        ``max_length`` tokens with its question (by default as many as it was fine-tuned with, 384
        where that is not recorded) is read in windows that overlap by ``doc_stride`` tokens (by
        default 128, a third of a window at most, as in fine-tuning and `evaluate`). With
        ``top_k`` above 1 there is a list of answers, best first; with lists of questions and
        contexts, one result for each. ``score`` is the softmax over the ``n_best`` spans; answers
        have up to ``max_answer_length`` tokens.
        """
        self.require("answer")
        for name, count in (
            ("top_k", top_k),
            ("doc_stride", doc_stride),
            ("max_answer_length", max_answer_length),
            ("n_best", n_best),
        ):
            check_count(name, count)
        check_count("max_length", max_length)
        pairs, single = as_questions(question, context)
        tokenizer = self._text_tokenizer()
        limit = min(max_length or window_length(self.config, self.max_length), self.max_length)
        stride = usual_stride(limit) if doc_stride is None else doc_stride
        windows = [
            list(tokenizer.windows(*pair, max_length=limit, doc_stride=stride)) for pair in pairs
        ]
        flat = [window.tokens for found in windows for window in found]
        logits = iter(self._per_token("head", flat, batch_size))
        answers = [
            best_answers(
                read,
                found,
                [next(logits) for _ in found],
                top_k=top_k,
                n_best=max(n_best, top_k),
                max_answer_length=max_answer_length,
            )
            for (_, read), found in zip(pairs, windows, strict=True)
        ]
        results = [found[0] for found in answers] if top_k == 1 else answers
        return results[0] if single else results

    def tag(
        self,
        texts: str | Iterable[str],
        *,
        aggregation: Aggregation | None = None,
        batch_size: int = 32,
        strict: bool = False,
    ) -> list[Any]:
        """A label for each token of each text, or entities, by a token-classification model.

        A list for each text: ``[{"text", "label", "score", "start", "end"}, ...]``. With
        ``aggregation``, "simple", "first", "average" or "max", tokens are joined to entities as by
        that strategy of transformers, and those with the label O are left out.
        """
        self.require("tag")
        check_aggregation(aggregation)
        given = as_texts(texts)
        tokenizer = self._text_tokenizer()
        located = tokenizer.locate(given, strict=strict)
        logits = self._per_token("head", [each.tokens for each in located], batch_size)
        labels = self.config.labels
        tags: list[Any] = [
            tagged_tokens(rows, each, str(text), labels)
            if aggregation is None
            else joined_entities(rows, each, str(text), labels, tokenizer, aggregation=aggregation)
            for rows, each, text in zip(logits, located, given.items, strict=True)
        ]
        return tags[0] if given.single else tags

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_k: int | None = None,
        batch_size: int = 32,
        strict: bool = False,
    ) -> list[RankedDocument]:
        """The documents that fit the query best, best first: ``[{"index", "score", "text"}, ...]``.

        By a model with one label, a cross-encoder. ``index`` is the place among ``documents``, and
        the score what `classify` gives the pair of query and document.
        """
        self.require("classify")
        if len(self.config.labels) != 1:
            raise InputError(
                f"{self.name} has {len(self.config.labels)} labels and is not a re-ranker, which "
                "has one: use classify."
            )
        check_count("top_k", top_k)
        texts = as_texts(documents)
        if texts.single or not all(isinstance(text, str) for text in texts.items):
            raise InputError("documents must be a list of texts.")
        pairs = as_texts([(query, str(text)) for text in texts.items])
        tokens = self._text_tokenizer().encode(pairs, strict=strict)
        logits = self._text_logits(tokens, batch_size)
        scores = apply_function(logits, self.score_function)[:, 0]
        return [
            {"index": index, "score": float(scores[index]), "text": str(texts.items[index])}
            for index in np.argsort(-scores, kind="stable")[:top_k].tolist()
        ]

    def fill(self, text: str, *, top_k: int = 5, strict: bool = False) -> list[FilledMask]:
        """The likeliest tokens for the one mask token in ``text``, by a masked-lm model."""
        self.require("fill")
        check_count("top_k", top_k)
        tokenizer = self._text_tokenizer()
        tokens = tokenizer.encode(as_texts(text), strict=strict)
        positions = np.flatnonzero(tokens[0].ids == tokenizer.mask_id)
        if len(positions) != 1:
            raise InputError(
                f"the text must have one {tokenizer.mask_token} to fill; it has {len(positions)}."
            )
        scores = softmax(self._per_token("head", tokens, 1)[0][positions[0]])
        return [
            {"token": tokenizer.backend.id_to_token(token) or "", "score": float(scores[token])}
            for token in np.argsort(-scores, kind="stable")[:top_k].tolist()
        ]

    def logits(
        self, texts: Text | Iterable[Text], *, batch_size: int = 32, strict: bool = False
    ) -> Any:
        """The head's output for each text, as `forward` returns it; InputError without a head.

        For a single text only its own: ``[labels]``, or ``[tokens, ...]``.
        """
        if self.config.head is Head.ENCODER:
            raise InputError(
                f"{self.name} is an encoder without a head and has no logits: use embed or "
                "hidden_states, or fine-tune it on a task first."
            )
        given = as_texts(texts)
        rows = self._head(self._text_tokenizer().encode(given, strict=strict), batch_size)
        return rows[0] if given.single else rows

    def hidden_states(
        self, texts: Text | Iterable[Text], *, batch_size: int = 32, strict: bool = False
    ) -> Any:
        """The last layer: a list of float32 ``[tokens, hidden]`` (one array for a single text)."""
        given = as_texts(texts)
        rows = self._per_token(
            "hidden", self._text_tokenizer().encode(given, strict=strict), batch_size
        )
        return rows[0] if given.single else rows

    def forward(
        self,
        ids: Iterable[Sequence[int]],
        type_ids: Iterable[Sequence[int]] | None = None,
        *,
        batch_size: int = 32,
        head: bool = True,
    ) -> Any:
        """The head's output for lists of token ids, special tokens included; no tokenizer.

        | head | result |
        |---|---|
        | sequence classification | float32 ``[sequences, labels]`` |
        | question answering | list of float32 ``[tokens, 2]``, start and end |
        | token classification | list of float32 ``[tokens, labels]`` |
        | masked LM | list of float32 ``[tokens, vocabulary]`` |
        | none | list of float32 ``[tokens, hidden]``, the last layer |

        Without ``head`` the last layer, whatever the head. Raises InputError for an id outside
        the vocabulary, an empty or too long sequence, or a wrong nesting.
        """
        tokens = as_token_sequences(
            ids,
            type_ids,
            vocab_size=self.config.vocab_size,
            type_vocab_size=self.config.type_vocab_size,
            max_positions=self.config.max_length,
        )
        if not head or self.config.head is Head.ENCODER:
            return self._per_token("hidden", tokens, batch_size)
        return self._head(tokens, batch_size)

    def save_pretrained(self, folder: str | Path, *, force: bool = False) -> Path:
        """Copy the model's folder as it is, packed or not; returns the new one.

        Raises OutputError if it exists (without ``force``) or cannot be written.
        """
        return copy_model(self.path, folder, force=force)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Put the model's folder on the Hugging Face hub: `sparsebert.push_to_hub`."""
        return push_to_hub(self.path, repo_id, **options)

    def embedding_width(self, pooling: PoolingMode | None = None) -> int:
        """Numbers of an embedding, pooled as the folder says or by ``pooling``."""
        chosen = self.pooling if pooling is None else replace(self.pooling, modes=(pooling,))
        return chosen.width(self.config.hidden_size)

    def prompt_tokens(self, prompt: str) -> int:
        """How many first tokens of a text behind ``prompt`` are not pooled.

        0 unless the folder's pooling leaves prompts out; then, as in sentence-transformers, those
        of the prompt by itself with the special tokens before it.
        """
        if not prompt or self.pooling.include_prompt:
            return 0
        return self._text_tokenizer().count_before(prompt)

    def _prompt(self, asked: str | None) -> str:
        prompt = self.prompts.default if asked is None else asked
        if not isinstance(prompt, str):
            raise InputError(f"prompt must be a text, not {prompt!r}.")
        return prompt

    def _head(self, tokens: Sequence[Tokens], batch_size: int) -> Any:
        if self.config.head is Head.SEQUENCE:
            return self._text_logits(tokens, batch_size)
        return self._per_token("head", tokens, batch_size)

    def _text_logits(self, tokens: Sequence[Tokens], batch_size: int) -> Floats:
        labels = len(self.config.labels)
        tokens = self._checked(tokens)
        return run_per_text(self._encoder, EngineCall("head"), tokens, batch_size, labels)

    def _per_token(
        self, method: Literal["head", "hidden"], tokens: Sequence[Tokens], batch_size: int
    ) -> list[Floats]:
        call = EngineCall(method, per_token=True)
        return run_per_token(self._encoder, call, self._checked(tokens), batch_size)

    def _checked(self, tokens: Sequence[Tokens]) -> Sequence[Tokens]:
        """Refuse ids outside the embedding tables, which the engine indexes unchecked."""
        for sequence in tokens:
            check_ids(self.name, self.config, sequence.ids, sequence.type_ids)
        return tokens

    def _text_tokenizer(self) -> TextTokenizer:
        if self._tokenizer is None:
            raise CheckpointError(
                f"{self.name} has no tokenizer.json and no vocabulary, so it cannot read texts: "
                "add one, or give token ids to forward()."
            )
        return self._tokenizer
