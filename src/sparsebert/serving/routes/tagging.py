"""``/tag`` and ``/fill``: entities and masked tokens, in the form of Hugging Face's pipelines."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, Request

from sparsebert.checkpoint import Head
from sparsebert.inference.batching import EngineCall, Floats
from sparsebert.inference.entities import joined_entities
from sparsebert.inference.labelling import softmax, tagged_tokens
from sparsebert.inference.sequences import LocatedTokens
from sparsebert.serving.errors import RequestError
from sparsebert.serving.inference import (
    checked_items,
    disconnected,
    field_name,
    require_head,
    truncation_of,
)
from sparsebert.serving.json_route import JsonRoute, stats_of
from sparsebert.serving.schemas import FilledToken, FillRequest, TaggedEntity, TagRequest
from sparsebert.serving.served_model import ServedModel
from sparsebert.serving.service import service_of

router = APIRouter(route_class=JsonRoute)

_OBJECT_BYTES = 512  # to reserve for an object of the response, in memory and as JSON


@router.post("/tag", response_model=list[TaggedEntity] | list[list[TaggedEntity]])
async def tag(request: Request, body: TagRequest) -> Any:
    """The entities of each text: one list for a single text, one list per text for a batch.

    With the strategy "none", its tokens. ``start`` and ``end`` are character positions in the text.
    """
    model = service_of(request).model(body.model, "/tag")
    require_head(model, Head.TOKEN, "tag")
    call = EngineCall("head", per_token=True)
    located, logits = await _run(request, model, body, call)
    tokenizer, labels = model.model.tokenizer, model.model.config.labels
    strategy, ignored = body.parameters.aggregation_strategy, body.parameters.ignore_labels

    def found(rows: Floats, each: LocatedTokens, text: str) -> list[dict[str, Any]]:
        if strategy == "none":
            tokens = tagged_tokens(rows, each, text, labels)
            return [_as_pipeline("entity", tag) for tag in tokens if tag["label"] not in ignored]
        entities = joined_entities(
            rows, each, text, labels, tokenizer, aggregation=strategy, ignored=ignored
        )
        return [_as_pipeline("entity_group", entity) for entity in entities]

    texts = [str(text) for text in body.inputs.items]
    answers = await model.in_tokenizer_pool(
        lambda: [found(*each) for each in zip(logits, located, texts, strict=True)]
    )
    return answers[0] if body.inputs.single else answers


def _as_pipeline(name: str, tag: Any) -> dict[str, Any]:
    """A label with its text, under the names of transformers' pipeline."""
    return {
        name: tag["label"],
        "score": tag["score"],
        "word": tag["text"],
        "start": tag["start"],
        "end": tag["end"],
    }


@router.post("/fill", response_model=list[FilledToken] | list[list[FilledToken]])
async def fill(request: Request, body: FillRequest) -> Any:
    """The most likely tokens for the one mask token of each text, best first."""
    model = service_of(request).model(body.model, "/fill")
    require_head(model, Head.MASKED_LM, "fill masks")
    tokenizer = model.model.tokenizer
    # Only the mask's: logits of every token would take vocabulary size times text length.
    call = EngineCall("masked", token=tokenizer.mask_id or 0)
    located, logits = await _run(request, model, body, call)

    def found(row: Floats, place: int, ids: Any) -> list[dict[str, Any]]:
        scores = softmax(row)
        tokens = []
        for token in np.argsort(-scores, kind="stable")[: body.parameters.top_k].tolist():
            whole = ids.copy()
            whole[place] = token
            tokens.append(
                {
                    "score": float(scores[token]),
                    "token": token,
                    "token_str": tokenizer.text_of(token),
                    "sequence": tokenizer.backend.decode(whole.tolist()),
                }
            )
        return tokens

    answers = await model.in_tokenizer_pool(
        lambda: [
            found(row, _mask(tokenizer.mask_id, each)[0], each.tokens.ids)
            for row, each in zip(logits, located, strict=True)
        ]
    )
    return answers[0] if body.inputs.single else answers


def _mask(mask_id: int | None, located: LocatedTokens) -> list[int]:
    """The positions of the mask tokens."""
    return [int(place) for place in np.flatnonzero(located.tokens.ids == mask_id)]


async def _run(
    request: Request, model: ServedModel, body: TagRequest | FillRequest, call: EngineCall
) -> tuple[list[LocatedTokens], list[Floats]]:
    """The tokens of each text with their character positions, and the results of ``call``."""
    stats = stats_of(request)
    truncation = truncation_of(request, body.truncate, body.truncation_direction)
    texts = [*map(str, checked_items(request, model, body.inputs, truncation=truncation))]
    name = field_name("inputs", single=body.inputs.single)
    located: list[LocatedTokens] = []

    def tokenize() -> list[Any]:
        located.extend(model.locate(texts, name, truncation, '"truncate": true'))
        if isinstance(body, TagRequest):
            answer = _OBJECT_BYTES * sum(len(each.tokens) for each in located)
        else:  # each token that may fill a mask is returned in the whole text
            text_bytes = [_OBJECT_BYTES + 4 * int(each.offsets.max()) for each in located]
            answer = body.parameters.top_k * sum(text_bytes)
        stats.reservation.reserve(answer)
        if isinstance(body, FillRequest):
            tokenizer = model.model.tokenizer
            for index, each in enumerate(located):
                if (count := len(_mask(tokenizer.mask_id, each))) != 1:
                    raise RequestError(
                        422,
                        f"{name(index)} must have one {tokenizer.mask_token} to fill; it has "
                        f"{count}.",
                        param="inputs",
                    )
        return [each.tokens for each in located]

    (logits,), _ = await model.run(stats, [call], tokenize, lambda: disconnected(request))
    return located, logits
