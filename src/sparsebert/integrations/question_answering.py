"""The pipeline for extractive question answering, which transformers 5.3 removed.

Arguments, defaults, results and their rounding are those of transformers 5.2, for any model with
such a head, ours or torch's. In each window of the context, a span's score is the product of its
start and end probabilities; scores of spans with the same text add up, within and across windows.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForQuestionAnswering, pipelines
from transformers.models.auto.modeling_auto import MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES
from transformers.pipelines.base import ChunkPipeline

from sparsebert.errors import InputError

Vector = npt.NDArray[Any]

TASK = "question-answering"
_EXCLUDED = -10000.0  # the logit of a token that cannot be in an answer


def restore_task() -> None:
    """Register the task with ``transformers.pipeline`` again, if it is missing."""
    if TASK in pipelines.PIPELINE_REGISTRY.get_supported_tasks():
        return
    getattr(pipelines, "REMOVED_TASKS", {}).pop(TASK, None)
    pipelines.PIPELINE_REGISTRY.register_pipeline(
        TASK, QuestionAnsweringPipeline, AutoModelForQuestionAnswering, type="text"
    )
    # Registering marks the class as one whose code is saved with a model, which ours must not be.
    del QuestionAnsweringPipeline._registered_impl


class QuestionAnsweringPipeline(ChunkPipeline):  # type: ignore[misc]
    """``answer(question=..., context=...)`` gives ``{"score", "start", "end", "answer"}``."""

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    default_input_names = "question,context"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.check_model_type(MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Answer one question or many.

        Inputs are ``question=`` and ``context=`` (strings, or lists; one context serves a list of
        questions), or dictionaries with these keys: one, a list, or an iterator of them. A single
        question, also in a list of one, returns an answer (a list of up to ``top_k`` answers, if
        above 1); a longer list returns a list of these.

        | option | default | |
        |---|---|---|
        | ``top_k`` | 1 | maximum number of answers |
        | ``max_seq_len`` | 384 | tokens of question and context that are read at once |
        | ``doc_stride`` | 128 | tokens that neighbouring windows share |
        | ``max_answer_len`` | 15 | maximum tokens of an answer |
        | ``handle_impossible_answer`` | False | whether there may be no answer: ``""`` |
        | ``align_to_words`` | True | whether answers are extended to whole words |
        """
        question, context = options.pop("question", None), options.pop("context", None)
        items = _items(inputs, question, context)
        if isinstance(items, list) and len(items) == 1:
            items = items[0]
        return super().__call__(items, **options)

    def _sanitize_parameters(
        self,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        top_k: int | None = None,
        max_answer_len: int | None = None,
        handle_impossible_answer: bool | None = None,
        align_to_words: bool | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        for name, count in (("top_k", top_k), ("max_answer_len", max_answer_len)):
            if count is not None and count < 1:
                raise InputError(f"{name} must be at least 1, not {count}.")
        reading = {"max_seq_len": max_seq_len, "doc_stride": doc_stride}
        choosing = {
            "top_k": top_k,
            "max_answer_len": max_answer_len,
            "handle_impossible_answer": handle_impossible_answer,
            "align_to_words": align_to_words,
        }
        return _given(reading), {}, _given(choosing)

    def preprocess(
        self,
        item: dict[str, str],
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The windows of one context, each with the question and a mask of tokens to exclude."""
        item = _checked(item)
        length = max_seq_len or min(self.tokenizer.model_max_length, 384)
        stride = min(length // 2, 128) if doc_stride is None else doc_stride
        # The question goes to the side that is not padded, so that padding does not move it.
        first = self.tokenizer.padding_side == "right"
        texts = (item["question"], item["context"])
        encoded = self.tokenizer(
            *(texts if first else texts[::-1]),
            truncation="only_second" if first else "only_first",
            max_length=length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        names = self.tokenizer.model_input_names
        windows = len(encoded["input_ids"])
        for window in range(windows):
            of_context = 1 if first else 0
            may = np.array([part == of_context for part in encoded.sequence_ids(window)])
            ids = np.array(encoded["input_ids"][window])
            may |= ids == self.tokenizer.cls_token_id  # where models put "no answer"
            yield {
                "item": item,
                "is_last": window == windows - 1,
                "encoding": encoded[window],
                # When it pads a batch, transformers fills tensors of this name with 1.
                "p_mask": torch.from_numpy(~may).unsqueeze(0),
                **{name: torch.tensor([encoded[name][window]]) for name in names},
            }

    def _forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        output = self.model(**{name: inputs[name] for name in self.tokenizer.model_input_names})
        return {"start": output["start_logits"], "end": output["end_logits"], **inputs}

    def postprocess(
        self,
        windows: Sequence[dict[str, Any]],
        top_k: int = 1,
        max_answer_len: int = 15,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
    ) -> Any:
        """The best answers over all windows of one context; scores of equal texts add up."""
        answers: dict[str, dict[str, Any]] = {}
        nothing = 1.0  # the lowest probability of "no answer" in any window
        for window in windows:
            may = ~window["p_mask"][0].bool().numpy()
            if "attention_mask" in window:
                may &= window["attention_mask"][0].bool().numpy()
            start, end = (
                _probabilities(window[name][0].float().numpy(), may) for name in ("start", "end")
            )
            nothing = min(nothing, float(start[0] * end[0]))
            start[0] = end[0] = 0
            # Aligned to words, several spans may become one, so more are considered.
            count = top_k * 2 + 10 if align_to_words else top_k
            padding = len(may) - len(window["encoding"])
            moved = padding if self.tokenizer.padding_side == "left" else 0
            for first, last, score in _best_spans(start, end, may, count, max_answer_len):
                begin, stop = _characters(
                    window["encoding"],
                    first - moved,
                    last - moved,
                    align_to_words,
                    1 if self.tokenizer.padding_side == "right" else 0,
                )
                text = window["item"]["context"][begin:stop]
                found = {"score": score, "start": begin, "end": stop, "answer": text}
                same = answers.setdefault(text.lower(), found)
                if same is not found:
                    same["score"] += score
        ranked = list(answers.values())
        if handle_impossible_answer:
            ranked.append({"score": nothing, "start": 0, "end": 0, "answer": ""})
        ranked = sorted(ranked, key=lambda answer: -answer["score"])[:top_k]
        return ranked[0] if len(ranked) == 1 else ranked


def _items(inputs: tuple[Any, ...], question: Any, context: Any) -> Any:
    """A list of questions with contexts, or the iterator or dataset that yields them."""
    if len(inputs) == 2 and all(isinstance(text, str) for text in inputs):
        inputs, question, context = (), *inputs
    if not inputs:
        if isinstance(question, str) and isinstance(context, str):
            return [_checked({"question": question, "context": context})]
        if isinstance(question, list) and isinstance(context, str):
            context = [context] * len(question)
        if not isinstance(question, list) or not isinstance(context, list):
            raise InputError("pass question= and context=, as strings or as lists of strings.")
        if len(question) != len(context):
            raise InputError(
                f"there are {len(question)} questions and {len(context)} contexts: pass one "
                "context per question, or a single one for all."
            )
        inputs = tuple(
            {"question": each, "context": read}
            for each, read in zip(question, context, strict=True)
        )
    elif len(inputs) == 1:
        if isinstance(inputs[0], types.GeneratorType | torch.utils.data.Dataset):
            return inputs[0]
        inputs = (inputs[0],) if isinstance(inputs[0], dict) else tuple(inputs[0])
    return [_checked(item) for item in inputs]


def _checked(item: Any) -> dict[str, str]:
    if not isinstance(item, dict):
        raise InputError("each question must be a dictionary with the keys question and context.")
    for name in ("question", "context"):
        if not isinstance(item.get(name), str) or not item[name]:
            raise InputError(f"{name} must be a string that is not empty.")
    return item


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _probabilities(logits: Vector, may: Vector) -> Any:
    """Softmax over the tokens that ``may`` be in an answer; float32 ``[tokens]``."""
    logits = np.where(may, logits, np.float32(_EXCLUDED))
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def _best_spans(
    start: Vector, end: Vector, may: Any, count: int, longest: int
) -> Iterator[tuple[int, int, float]]:
    """First and last token and score of the ``count`` best spans of up to ``longest`` tokens."""
    scores = np.tril(np.triu(np.outer(start, end)), longest - 1)
    flat = scores.ravel()
    if count < flat.size:
        best = np.argpartition(-flat, count)[:count]
        best = best[np.argsort(-flat[best])]
    else:
        best = np.argsort(-flat)
    for first, last in zip(*np.unravel_index(best, scores.shape), strict=True):
        if may[first] and may[last]:
            yield int(first), int(last), float(scores[first, last])


def _characters(
    encoding: Any, first: int, last: int, to_words: bool, sequence: int
) -> tuple[int, int]:
    """Where in the context a span begins and ends, extended to whole words if there are any."""
    words = encoding.token_to_word(first), encoding.token_to_word(last)
    if to_words and None not in words:
        begin = encoding.word_to_chars(words[0], sequence)
        stop = encoding.word_to_chars(words[1], sequence)
        if begin is not None and stop is not None:
            return begin[0], stop[1]
    return encoding.offsets[first][0], encoding.offsets[last][1]
