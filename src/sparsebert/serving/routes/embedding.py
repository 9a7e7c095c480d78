"""``/embed``, ``/embed_all`` and ``/similarity``, as in text-embeddings-inference."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from fastapi import APIRouter, Request

from sparsebert.serving.asking import (
    check_dimensions,
    cutting,
    pooled,
    prompt_for,
    rows_for,
    shortened,
)
from sparsebert.serving.batching import EngineCall, Floats
from sparsebert.serving.inputs import TextInputs
from sparsebert.serving.schemas import EmbedAllRequest, EmbedRequest, SimilarityRequest
from sparsebert.serving.service import service_of
from sparsebert.serving.work_route import WorkRoute

router = APIRouter(route_class=WorkRoute)


@router.post("/embed", response_model=list[list[float]])
async def embed(request: Request, body: EmbedRequest) -> Any:
    """One embedding for each text, pooled as the model's folder says."""
    model = service_of(request).model(body.model, "/embed")
    check_dimensions(model, body.dimensions)
    rows = await rows_for(
        request,
        model,
        pooled(model, normalize=body.normalize),
        body.inputs,
        cut=cutting(request, body.truncate, body.truncation_direction),
        prompt=prompt_for(model, body.inputs.items, body.prompt_name),
    )
    return shortened(rows, body.dimensions, normalize=body.normalize)


@router.post("/embed_all", response_model=list[list[list[float]]])
async def embed_all(request: Request, body: EmbedAllRequest) -> Any:
    """The last hidden state of every token of each text, without pooling."""
    model = service_of(request).model(body.model, "/embed_all")
    return await rows_for(
        request,
        model,
        EngineCall("hidden", per_token=True),
        body.inputs,
        cut=cutting(request, body.truncate, body.truncation_direction),
        prompt=prompt_for(model, body.inputs.items, body.prompt_name),
    )


@router.post("/similarity", response_model=list[float])
async def similarity(request: Request, body: SimilarityRequest) -> Any:
    """The cosine of the source sentence's embedding with that of each sentence."""
    model = service_of(request).model(body.model, "/similarity")
    asked = body.parameters
    cut = cutting(
        request,
        body.truncate if asked.truncate is None else asked.truncate,
        asked.truncation_direction or body.truncation_direction,
    )

    async def embedded(inputs: TextInputs, label: str) -> list[Floats]:
        return await rows_for(
            request,
            model,
            pooled(model, normalize=True),
            inputs,
            label=label,
            cut=cut,
            prompt=prompt_for(model, inputs.items, asked.prompt_name),
        )

    rows, source = await asyncio.gather(
        embedded(TextInputs([*body.inputs.sentences], False), "inputs.sentences"),
        embedded(TextInputs([body.inputs.source_sentence], True), "inputs.source_sentence"),
    )
    return np.stack(rows) @ source[0]
