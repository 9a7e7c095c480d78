"""OpenAI's ``/v1/embeddings`` and ``/v1/models``."""

from __future__ import annotations

import base64
import time
from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from sparsebert.inference.batching import Floats
from sparsebert.serving.errors import RequestError
from sparsebert.serving.inference import (
    check_dimensions,
    embed,
    field_name,
    prompt_for,
    truncate_dimensions,
    truncation_of,
)
from sparsebert.serving.inputs import Inputs, TextInputs
from sparsebert.serving.json_route import JsonRoute, stats_of
from sparsebert.serving.schemas import Count, RequestBody, TruncatePromptTokens
from sparsebert.serving.service import service_of

router = APIRouter(route_class=JsonRoute)
models_router = APIRouter()

_STARTED = int(time.time())


class EmbeddingsRequest(RequestBody):
    harmless: ClassVar[tuple[str, ...]] = ("priority", "request_id", "cache_salt")  # of vLLM

    input: Inputs
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64 encodes the numbers as little-endian float32."
    )
    dimensions: Count | None = None
    user: str | None = None
    truncate: bool | None = Field(
        None, description="Truncate texts that are too long; by default, as set on the server."
    )
    truncate_prompt_tokens: TruncatePromptTokens = None


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


@router.post("/embeddings", include_in_schema=False)  # as in TEI
@router.post("/v1/embeddings", response_model=EmbeddingsResponse)
async def embeddings(request: Request, body: EmbeddingsRequest) -> Any:
    """One embedding of length 1 for each text or list of token ids."""
    service = service_of(request)
    model = service.model(body.model, "/v1/embeddings")
    check_dimensions(model, body.dimensions)
    if not service.options.accept_token_ids:
        _refuse_token_ids(body.input)
    rows = await embed(
        request,
        model,
        body.input,
        normalize=True,
        label="input",
        truncation=truncation_of(request, body.truncate, tokens=body.truncate_prompt_tokens),
        prompt=prompt_for(model, body.input.items, None),
    )
    tokens = stats_of(request).tokens
    written = [
        _base64(row) if body.encoding_format == "base64" else row
        for row in truncate_dimensions(rows, body.dimensions, normalize=True)
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


def _refuse_token_ids(inputs: TextInputs) -> None:
    """Clients make them with OpenAI's tokenizer; to this model they would mean other words."""
    name = field_name("input", single=inputs.single)
    for index, item in enumerate(inputs.items):
        if not isinstance(item, str):
            raise RequestError(
                422,
                f"{name(index)} is a list of token ids, and those of OpenAI's tokenizer mean other "
                "words to this model: send texts (in LangChain, "
                "OpenAIEmbeddings(check_embedding_ctx_length=False)), or start the server with "
                "--accept-token-ids if the ids are this model's own.",
                param="input",
            )


def _base64(row: Floats) -> str:
    return base64.b64encode(row.astype("<f4", copy=False).tobytes()).decode()


@models_router.get("/v1/models", response_model=ModelList)
async def list_models(request: Request) -> Any:
    """The models of this server, the default first."""
    return {"object": "list", "data": [_described(name) for name in service_of(request).models]}


@models_router.get("/v1/models/{name:path}", response_model=ModelObject)
async def retrieve_model(request: Request, name: str) -> Any:
    """One model of this server."""
    return _described(service_of(request).named(name).name)


def _described(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _STARTED, "owned_by": "sparsebert"}
