"""``/answer``: extractive question answering, in the form of Hugging Face's pipelines."""

from __future__ import annotations

from itertools import islice
from typing import Any

from fastapi import APIRouter, Request

from sparsebert.checkpoint import Head
from sparsebert.checkpoint.sparsity import null_threshold
from sparsebert.inference.answering import best_answers, window_length
from sparsebert.inference.batching import EngineCall
from sparsebert.inference.sequences import LocatedTokens, Tokens
from sparsebert.inference.tokenizing import usual_stride
from sparsebert.serving.errors import RequestError
from sparsebert.serving.inference import disconnected, require_head
from sparsebert.serving.json_route import JsonRoute, stats_of
from sparsebert.serving.schemas import AnswerRequest, AnswerSpan
from sparsebert.serving.service import service_of

router = APIRouter(route_class=JsonRoute)

_HEAD = EngineCall("head", per_token=True)
_N_BEST = 20
# A question or overlap that leaves a window only one or two tokens of context would yield nearly as
# many windows as tokens. With the usual settings, a context of 100,000 tokens takes 400 windows.
_MOST_WINDOWS = 512


@router.post("/answer", response_model=AnswerSpan | list[AnswerSpan])
async def answer(request: Request, body: AnswerRequest) -> Any:
    """The span of the context that answers the question; with ``top_k`` above 1, a list of spans.

    If context and question together exceed ``max_seq_len`` tokens, the context is read in windows,
    by default as in fine-tuning and `evaluate`.
    """
    service, stats, parameters = service_of(request), stats_of(request), body.parameters
    model = service.model(body.model, "/answer")
    require_head(model, Head.QUESTION, "answer questions")
    question, context = body.inputs.question, body.inputs.context
    for name, text in (("inputs.question", question), ("inputs.context", context)):
        service.check_characters(len(text), name)
    stats.model, stats.items = model.name, 1
    stats.characters = len(question) + len(context)
    # Defaults are those of `Model.answer`, and so those of fine-tuning.
    given, most = parameters.model_fields_set, model.model.max_length
    usual = window_length(model.model.config, most)
    length = min(parameters.max_seq_len, most) if "max_seq_len" in given else usual
    stride = parameters.doc_stride if "doc_stride" in given else usual_stride(length)
    silence = null_threshold(model.model.config.sparsity)
    if "handle_impossible_answer" in given:
        silence = (silence or 0.0) if parameters.handle_impossible_answer else None
    windows: list[LocatedTokens] = []

    def tokenize() -> list[Tokens]:
        found = model.model.tokenizer.windows(
            question,
            context,
            max_length=length,
            doc_stride=stride,
            names=("inputs.question", "inputs.context"),
        )
        windows.extend(islice(found, _MOST_WINDOWS + 1))
        if len(windows) > _MOST_WINDOWS:
            raise RequestError(
                413,
                f"the context would be read in more than {_MOST_WINDOWS} windows: shorten it, "
                "lower doc_stride or raise max_seq_len.",
                param="inputs",
            )
        return [window.tokens for window in windows]

    (logits,), _ = await model.run(stats, [_HEAD], tokenize, lambda: disconnected(request))
    found = await model.in_tokenizer_pool(
        lambda: best_answers(
            context,
            windows,
            logits,
            top_k=parameters.top_k,
            n_best=max(_N_BEST, parameters.top_k),
            max_answer_length=parameters.max_answer_len,
            null_threshold=silence,
        )
    )
    spans = [
        {"answer": each["text"], **{name: each[name] for name in ("score", "start", "end")}}
        for each in found
    ]
    return spans[0] if parameters.top_k == 1 else spans
