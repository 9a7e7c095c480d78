"""OpenAI's ``/v1/embeddings`` and ``/v1/models``."""

from __future__ import annotations

import base64
import time
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from sparsebert.serving.asking import (
    check_dimensions,
    pooled,
    prompt_for,
    rows_for,
    shortened,
)
from sparsebert.serving.batching import Floats
from sparsebert.serving.inputs import Inputs
from sparsebert.serving.schemas import RequestBody
from sparsebert.serving.service import service_of
from sparsebert.serving.work_route import WorkRoute, work_of

router = APIRouter(route_class=WorkRoute)
models_router = APIRouter()

_STARTED = int(time.time())


class EmbeddingsRequest(RequestBody):
    input: Inputs
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64 is of the numbers' little-endian float32 bytes."
    )
    dimensions: int | None = None
    user: str | None = None


class Embedding(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ModelObject(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelObject]


@router.post("/embeddings", include_in_schema=False)  # TEI answers here too
@router.post("/v1/embeddings", response_model=EmbeddingsResponse)
async def embeddings(request: Request, body: EmbeddingsRequest) -> Any:
    """One embedding of length 1 for each text or list of token ids."""
    model = service_of(request).model(body.model)
    check_dimensions(model, body.dimensions)
    rows = await rows_for(
        request,
        model,
        pooled(model, normalize=True),
        body.input.items,
        label="input",
        prompt=prompt_for(model, body.input.items, None),
    )
    tokens = work_of(request).tokens
    written = [
        _base64(row) if body.encoding_format == "base64" else row
        for row in shortened(rows, body.dimensions, normalize=True)
    ]
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(written)
        ],
        "model": model.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _base64(row: Floats) -> str:
    return base64.b64encode(row.astype("<f4", copy=False).tobytes()).decode()


@models_router.get("/v1/models", response_model=ModelList)
async def list_models(request: Request) -> Any:
    """The models of this server, the default first."""
    return {"object": "list", "data": [_described(name) for name in service_of(request).models]}


@models_router.get("/v1/models/{name:path}", response_model=ModelObject)
async def retrieve_model(request: Request, name: str) -> Any:
    """One of them."""
    return _described(service_of(request).model(name).name)


def _described(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _STARTED, "owned_by": "sparsebert"}
