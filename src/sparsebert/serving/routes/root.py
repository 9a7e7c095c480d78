"""``POST /``: what fits the model's head, for clients that only know a server's address.

So text-embeddings-inference does it, and so `huggingface_hub.InferenceClient(base_url)` asks.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import ConfigDict

from sparsebert.checkpoint import Head
from sparsebert.serving.routes.answering import answer
from sparsebert.serving.routes.classification import predict
from sparsebert.serving.routes.embedding import embed, similarity
from sparsebert.serving.routes.reranking import rerank
from sparsebert.serving.schemas import (
    AnswerRequest,
    EmbedRequest,
    PredictRequest,
    RequestBody,
    RerankRequest,
    SimilarityRequest,
)
from sparsebert.serving.service import service_of
from sparsebert.serving.work_route import WorkRoute, fitted

router = APIRouter(route_class=WorkRoute)


class AnyRequest(RequestBody):
    """The body of the route that fits."""

    model_config = ConfigDict(extra="allow")


@router.post("/", include_in_schema=False)  # its body is that of another
async def ask_default(request: Request, body: AnyRequest) -> Any:
    """`/embed`, `/similarity`, `/predict`, `/rerank` or `/answer`: by the model and the body."""
    content = body.model_dump(exclude_unset=True)
    if "query" in content:
        return await rerank(request, fitted(content, RerankRequest))
    inputs = content.get("inputs")
    if isinstance(inputs, dict) and "question" in inputs:
        return await answer(request, fitted(content, AnswerRequest))
    model = service_of(request).model(body.model, "/")
    if model.head is Head.QUESTION:
        return await answer(request, fitted(content, AnswerRequest))
    if model.head is Head.SEQUENCE:
        return await predict(request, fitted(content, PredictRequest))
    if isinstance(inputs, dict):
        return await similarity(request, fitted(content, SimilarityRequest))
    return await embed(request, fitted(content, EmbedRequest))
