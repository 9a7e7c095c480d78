"""``/rerank`` as in text-embeddings-inference, ``/v1/rerank`` and ``/v2/rerank`` as at Cohere.

The scores are the same: those of `Model.classify` for a query with a text.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from sparsebert.checkpoint import Head
from sparsebert.inference.labelling import apply_function
from sparsebert.serving.errors import WRONG_HEAD, RequestError
from sparsebert.serving.inference import embed_tokens, infer_logits, require_head, truncation_of
from sparsebert.serving.inputs import Documents, Filled, PredictInputs, TextInputs, Whole
from sparsebert.serving.json_route import Body, JsonRoute, json_object, stats_of, validated
from sparsebert.serving.schemas import (
    Count,
    Rank,
    RequestBody,
    RerankRequest,
    SideToCut,
    TopN,
    TruncatePromptTokens,
)
from sparsebert.serving.served_model import ServedModel, Truncation
from sparsebert.serving.service import service_of


class RerankRoute(JsonRoute):
    """Also takes the body of vLLM, which has this route too: ``documents``, not ``texts``."""

    def read(self, request: Request, raw: bytes, body_type: type[Body]) -> Body:
        """TEI's body, or vLLM's."""
        content = json_object(raw)
        if "documents" in content and "texts" not in content:
            return validated(content, RerankDocumentsRequest)  # type: ignore[return-value]
        return validated(content, body_type)


router = APIRouter(route_class=RerankRoute)
documents_router = APIRouter(route_class=JsonRoute)


class RerankDocumentsRequest(RequestBody):
    """What Cohere's (versions 1 and 2), Jina's and vLLM's clients send."""

    harmless: ClassVar[tuple[str, ...]] = ("priority", "request_id", "cache_salt", "user")

    query: Filled
    documents: Documents
    top_n: TopN = None
    return_documents: bool = False
    raw_scores: bool = Field(False, description="Return logits instead of probabilities.")
    use_activation: bool = Field(True, description="As in vLLM: if false, return logits.")
    truncate: bool = Field(
        True, description="Truncate what is too long, as Cohere does; if false, refuse it."
    )
    truncate_prompt_tokens: TruncatePromptTokens = None
    truncation_side: SideToCut = None
    max_tokens_per_doc: Count | None = Field(
        None, description="At least the model's maximum: a lower limit is not supported."
    )
    max_chunks_per_doc: Annotated[int, Field(ge=1, le=1), Whole] | None = None
    rank_fields: list[Literal["text"]] | None = None
    relevant_spans: None = Field(None, description="Not supported.")


class RankedDocument(BaseModel):
    text: str


class RankedResult(BaseModel):
    index: int
    relevance_score: float
    document: RankedDocument | None = None


class RerankUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class RerankDocumentsResponse(BaseModel):
    """Cohere's fields (``id``, ``results``, ``meta``) with Jina's (``model``, ``usage``)."""

    id: str
    model: str
    results: list[RankedResult]
    usage: RerankUsage
    meta: dict[str, Any]


@router.post("/rerank", response_model=list[Rank])
async def rerank(request: Request, body: RerankRequest) -> Any:
    """The indices of the texts, the one that fits the query best first.

    A body with `documents` instead of `texts` is answered as on `/v1/rerank`.
    """
    given: RequestBody = body
    if isinstance(given, RerankDocumentsRequest):
        return await rerank_documents(request, given)
    model = _reranker(request, body.model)
    scores = await _scores(
        request,
        model,
        body.query,
        body.texts,
        label="texts",
        truncation=truncation_of(request, body.truncate, body.truncation_direction),
        raw=body.raw_scores,
    )
    ranks: list[dict[str, Any]] = []
    for index in np.argsort(-scores, kind="stable")[: body.top_n].tolist():
        text = {"text": body.texts[index]} if body.return_text else {}
        ranks.append({"index": index, "score": scores[index], **text})
    return ranks


@documents_router.post("/v1/rerank", response_model=RerankDocumentsResponse)
@documents_router.post("/v2/rerank", response_model=RerankDocumentsResponse)
async def rerank_documents(request: Request, body: RerankDocumentsRequest) -> Any:
    """The indices of the documents, the one that fits the query best first."""
    model = _reranker(request, body.model)
    if (body.max_tokens_per_doc or model.model.max_length) < model.model.max_length:
        raise RequestError(
            422,
            f"max_tokens_per_doc must be at least {model.model.max_length}, the tokens that "
            f"{model.name} reads of query and document together: a lower limit is not supported.",
            param="max_tokens_per_doc",
        )
    scores = await _scores(
        request,
        model,
        body.query,
        body.documents,
        label="documents",
        truncation=truncation_of(
            request, body.truncate, body.truncation_side, body.truncate_prompt_tokens
        ),
        raw=body.raw_scores or not body.use_activation,
    )
    results: list[dict[str, Any]] = []
    for index in np.argsort(-scores, kind="stable")[: body.top_n].tolist():
        document = {"document": {"text": body.documents[index]}} if body.return_documents else {}
        results.append({"index": index, "relevance_score": scores[index], **document})
    tokens = stats_of(request).tokens
    return {
        "id": str(uuid.uuid4()),
        "model": model.name,
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "meta": {"tokens": {"input_tokens": tokens, "output_tokens": 0}},
    }


def _reranker(request: Request, name: str | None) -> ServedModel:
    model = service_of(request).model(name, "/rerank")
    if not model.is_reranker:
        require_head(model, Head.SEQUENCE, "rerank")
        raise RequestError(
            424,
            f"{model.name} has {len(model.model.config.labels)} labels and is not a reranker, "
            "which has one: use /predict.",
            code=WRONG_HEAD,
        )
    return model


async def _scores(
    request: Request,
    model: ServedModel,
    query: str,
    texts: Sequence[str],
    *,
    label: str,
    truncation: Truncation | None,
    raw: bool = False,
) -> Any:
    """Relevance of each text, float32 ``[texts]``."""
    if model.head is not Head.SEQUENCE:
        return await _similarities(request, model, query, texts, label=label, truncation=truncation)
    pairs = PredictInputs([(query, text) for text in texts], False)
    logits = await infer_logits(request, model, pairs, label=label, truncation=truncation)
    return apply_function(logits, "none" if raw else model.model.relevance_function)[:, 0]


async def _similarities(
    request: Request,
    model: ServedModel,
    query: str,
    texts: Sequence[str],
    *,
    label: str,
    truncation: Truncation | None,
) -> Any:
    """Similarity of each text to the query, from a multi-vector model (MaxSim)."""
    embedder = model.model.token_vectors
    assert embedder is not None
    documents, queries = await asyncio.gather(
        embed_tokens(
            request,
            model,
            TextInputs([*texts], False),
            task="document",
            label=label,
            truncation=truncation,
        ),
        embed_tokens(
            request,
            model,
            TextInputs([query], True),
            task="query",
            label="query",
            truncation=truncation,
        ),
    )
    return await model.in_tokenizer_pool(lambda: embedder.scores(queries[0], documents))
