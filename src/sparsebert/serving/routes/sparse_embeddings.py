"""``/embed_sparse`` as in text-embeddings-inference, and ``/embed_hybrid`` for BGE-M3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import APIRouter, Request

from sparsebert.checkpoint import Head
from sparsebert.inference.batching import EngineCall
from sparsebert.inference.sparse import (
    SparseEmbedding,
    TokenLookup,
    TokenWeigher,
    sparse_call,
    sparse_embedding,
)
from sparsebert.serving.errors import WRONG_HEAD, RequestError
from sparsebert.serving.inference import (
    infer_each,
    look_up,
    prompt_for,
    require_head,
    skipped_tokens,
    truncation_of,
)
from sparsebert.serving.json_route import JsonRoute
from sparsebert.serving.schemas import (
    EmbedSparseRequest,
    HybridEmbedding,
    PromptedBody,
    SparseValue,
)
from sparsebert.serving.service import service_of

router = APIRouter(route_class=JsonRoute)

_HIDDEN = EngineCall("hidden", per_token=True)


@router.post("/embed_sparse", response_model=list[list[SparseValue]])
async def embed_sparse(request: Request, body: EmbedSparseRequest) -> Any:
    """The vocabulary tokens that matter in each text, and their weights (SPLADE, BGE-M3).

    With a task, texts get the model's prompt for queries or documents, and take its route for them.
    """
    model = service_of(request).model(body.model, "/embed_sparse")
    if model.model.token_weigher is None:
        require_head(model, Head.MASKED_LM, "make sparse embeddings")
    route = model.model.sparse_route(body.task)
    truncation = truncation_of(request, body.truncate, body.truncation_direction)
    prompt = prompt_for(model, body.inputs.items, body.prompt_name)
    if body.task is not None and body.prompt_name is None:
        prompt = model.prompts.of(body.task)
    if isinstance(route, TokenLookup):
        found = await look_up(
            request, model, route, body.inputs, truncation=truncation, prompt=prompt
        )
        return await model.in_tokenizer_pool(lambda: _as_pairs(found))
    if isinstance(route, TokenWeigher):
        call = _HIDDEN
    elif route.unsupported:
        raise RequestError(424, route.unsupported, code=WRONG_HEAD)
    else:
        call = sparse_call(route)
    (rows,), read = await infer_each(
        request, model, [call], body.inputs, truncation=truncation, prompt=prompt
    )

    def written() -> list[list[dict[str, Any]]]:
        if isinstance(route, TokenWeigher):
            return _as_pairs([*map(route.embedding, rows, read)])
        return _as_pairs([sparse_embedding(row, route) for row in rows])

    return await model.in_tokenizer_pool(written)


@router.post("/embed_hybrid", response_model=list[HybridEmbedding])
async def embed_hybrid(request: Request, body: PromptedBody) -> Any:
    """Dense, sparse and multi-vector embeddings from one pass (BGE-M3).

    They are those of `/embed` (normalised if the model's folder says so), `/embed_sparse` and
    `/embed_all`.
    """
    model = service_of(request).model(body.model, "/embed_hybrid")
    if not model.model.embeds_hybrid:
        raise RequestError(
            424,
            f"{model.name} lacks a head for sparse or multi-vector embeddings: this route requires "
            f"a model like BGE-M3. It answers {', '.join(model.routes)}.",
            code=WRONG_HEAD,
        )
    prompt = prompt_for(model, body.inputs.items, body.prompt_name)
    (states,), read = await infer_each(
        request,
        model,
        [_HIDDEN],
        body.inputs,
        truncation=truncation_of(request, body.truncate, body.truncation_direction),
        prompt=prompt,
    )
    skipped = skipped_tokens(model, body.inputs, prompt)

    def written() -> list[orjson.Fragment]:
        # As bytes: they are large, and so are serialised off the event loop.
        return [
            orjson.Fragment(
                orjson.dumps(
                    {
                        "dense": each.dense,
                        "sparse": _as_pairs([each.sparse])[0],
                        "tokens": each.tokens,
                    },
                    option=orjson.OPT_SERIALIZE_NUMPY,
                )
            )
            for each in model.model.hybrid_embeddings(states, read, skipped)
        ]

    return await model.in_tokenizer_pool(written)


def _as_pairs(found: Sequence[SparseEmbedding]) -> list[list[dict[str, Any]]]:
    return [[{"index": i, "value": v} for i, v in each.as_dict().items()] for each in found]
