"""A loaded model: the native engine with its folder's tokenizer, pooling and labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sparsebert.checkpoint import Head
from sparsebert.checkpoint.sparsity import null_threshold as trained_threshold
from sparsebert.errors import InputError
from sparsebert.inference.answering import as_questions, best_answers, window_length
from sparsebert.inference.batching import EngineCall, Floats, results
from sparsebert.inference.embedding_model import EmbeddingModel
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
from sparsebert.inference.texts import Text, Texts, as_string, as_texts
from sparsebert.inference.tokenizing import usual_stride

_DOCUMENT = "documents[{}]".format


class Model(EmbeddingModel):
    """A loaded model, made by `load`. It may be used from several Python threads at once.

    Texts are strings, or pairs of strings that are read together (such as a premise and a
    hypothesis). Methods that take texts accept a single one (and return one result) or any iterable
    of them (and return a list or array with one result per text). Texts longer than `max_length`
    tokens are truncated with a TruncationWarning; with ``strict``, they raise InputError.

    ``path`` is the folder that the model was loaded from (for a hub id, in the hub's cache),
    ``prompts`` are the folder's prompts, which are put before texts to embed, and
    ``score_function`` says how a classifier's logits become scores (``relevance_function``, those
    of `rerank`).

    Copies share one engine. Pickling stores only the folder and the options that the model was
    loaded with, from which another process loads it again.
    """

    def classify(
        self,
        texts: Text | Iterable[Text],
        *,
        top_k: int | None = None,
        batch_size: int = 32,
        strict: bool = False,
    ) -> Any:
        """Labels with scores, best first: a list ``[{"label", "score"}, ...]`` for each text.

        ``top_k`` keeps only the best. Scores are probabilities (independent ones for a multi-label
        model or one with a single label), but the predicted value for a regression model, and the
        logit itself if the folder names Identity as its activation, as some rerankers do. The
        default prompt of a CrossEncoder is put before each text, or before the first text of a
        pair, as in sentence-transformers.
        """
        self.require("classify")
        check_count("top_k", top_k)
        given = as_texts(texts, self.score_prompt)
        logits = self._text_logits(self.tokenizer.encode(given, strict=strict), batch_size)
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
        null_threshold: float | None = None,
        batch_size: int = 32,
    ) -> Any:
        """The part of ``context`` that answers ``question``: ``{"text", "start", "end", "score"}``.

        ``start`` and ``end`` count characters of the context. If question and context together are
        longer than ``max_length`` tokens (by default the length that the model was fine-tuned with,
        or 384 if that is not recorded), the context is read in windows that overlap by
        ``doc_stride`` tokens (by default 128, a third of a window at most, as in fine-tuning and
        `evaluate`). Answers have at most ``max_answer_length`` tokens, and ``score`` is the softmax
        over the ``n_best`` spans. With ``top_k`` above 1, the result is a list of answers, best
        first; for lists of questions or contexts, it is a list with one result for each.

        A model that was fine-tuned on SQuAD v2 may also answer that there is no answer, with an
        empty text at 0, if that is likelier than the best span by more than ``null_threshold``, a
        difference of logits that defaults to the one used in training. Other models do so only if a
        threshold is given, and with ``float("inf")`` no model does.
        """
        self.require("answer")
        if null_threshold is None:
            null_threshold = trained_threshold(self.config.sparsity)
        elif null_threshold == float("inf"):
            null_threshold = None
        elif not isinstance(null_threshold, (int, float)) or not math.isfinite(null_threshold):
            raise InputError(
                f"null_threshold must be a number, or infinity for no empty answer, not "
                f"{null_threshold!r}."
            )
        for name, count in (
            ("top_k", top_k),
            ("doc_stride", doc_stride),
            ("max_answer_length", max_answer_length),
            ("n_best", n_best),
        ):
            check_count(name, count)
        check_count("max_length", max_length)
        pairs, single = as_questions(question, context)
        tokenizer = self.tokenizer
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
                null_threshold=null_threshold,
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
        """The label of each token of each text, or entities, by a token-classification model.

        For each text, the result is a list ``[{"text", "label", "score", "start", "end"}, ...]``.
        With ``aggregation`` ("simple", "first", "average" or "max"), tokens are grouped into
        entities by the strategy of that name in transformers, and those with the label O are left
        out.
        """
        self.require("tag")
        check_aggregation(aggregation)
        given = as_texts(texts)
        tokenizer = self.tokenizer
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

    @property
    def is_reranker(self) -> bool:
        """Whether it can `rerank`: a classifier with one label, or a multi-vector model."""
        if self.config.head is Head.SEQUENCE:
            return len(self.config.labels) == 1
        return self.token_vectors is not None

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_k: int | None = None,
        batch_size: int = 32,
        strict: bool = False,
    ) -> list[RankedDocument]:
        """Documents by relevance to the query, best first: ``[{"index", "score", "text"}, ...]``.

        The model is either a cross-encoder (with one label), whose score for the pair of query and
        document is the activation that the folder names for a CrossEncoder, or else that of
        `classify`, or a multi-vector model, whose score is the similarity of their tokens (MaxSim).
        ``index`` is the position in ``documents``, and ``top_k`` keeps only the best.
        """
        check_count("top_k", top_k)
        query = as_string(query, "query")
        texts = as_texts(documents, named=_DOCUMENT)
        if texts.single or not all(isinstance(text, str) for text in texts.items):
            raise InputError("documents must be a list of texts.")
        if self.token_vectors is not None and self.config.head is not Head.SEQUENCE:
            asked = self.embed_tokens(query, task="query", strict=strict)
            vectors = self.embed_tokens(texts.items, batch_size=batch_size, strict=strict)
            scores = self.token_vectors.scores(asked, vectors)
        else:
            scores = self._pair_scores(query, texts, batch_size, strict=strict)
        return [
            {"index": index, "score": float(scores[index]), "text": str(texts.items[index])}
            for index in np.argsort(-scores, kind="stable")[:top_k].tolist()
        ]

    def _pair_scores(self, query: str, texts: Texts, batch_size: int, *, strict: bool) -> Floats:
        self.require("classify")
        if len(self.config.labels) != 1:
            raise InputError(
                f"{self.name} has {len(self.config.labels)} labels, but a reranker has one: use "
                "classify."
            )
        pairs = as_texts(
            [(query, str(text)) for text in texts.items], self.score_prompt, named=_DOCUMENT
        )
        tokens = self.tokenizer.encode(pairs, strict=strict)
        logits = self._text_logits(tokens, batch_size)
        return np.asarray(apply_function(logits, self.relevance_function)[:, 0])

    def fill(
        self,
        texts: Text | Iterable[Text],
        *,
        top_k: int = 5,
        batch_size: int = 32,
        strict: bool = False,
    ) -> list[Any]:
        """The likeliest tokens for a text's mask token, best first: ``[{"token", "score"}, ...]``.

        ``token`` is the token's text; for byte pairs, it begins with the space before a word. Needs
        a masked-LM model. Raises InputError for a text without exactly one mask token.
        """
        self.require("fill")
        check_count("top_k", top_k)
        given, tokenizer = as_texts(texts), self.tokenizer
        tokens = self._checked(tokenizer.encode(given, strict=strict))
        mask, mask_id = tokenizer.mask_token, tokenizer.mask_id
        for index, each in enumerate(tokens):
            count = np.count_nonzero(each.ids == mask_id)
            if count != 1:
                raise InputError(f"{given.name(index)} must have exactly one {mask}, not {count}.")
        filled: list[Any] = [None] * len(tokens)
        call = EngineCall("masked", token=mask_id or 0)
        for index, logits in results(self._encoder, call, tokens, batch_size):
            scores = softmax(logits)
            best = np.argsort(-scores, kind="stable")[:top_k].tolist()
            filled[index] = [
                FilledMask(token=tokenizer.text_of(token), score=float(scores[token]))
                for token in best
            ]
        return filled[0] if given.single else filled
