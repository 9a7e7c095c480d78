"""``/health``, ``/info`` and ``/metrics``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

import sparsebert
from sparsebert.checkpoint import Head
from sparsebert.serving.errors import RequestError
from sparsebert.serving.metrics import CONTENT_TYPE
from sparsebert.serving.served_model import ServedModel
from sparsebert.serving.service import service_of

router = APIRouter()

_TYPES = {
    Head.ENCODER: "embedding",
    Head.SEQUENCE: "classifier",
    Head.QUESTION: "question_answering",
    Head.TOKEN: "token_classification",
    Head.MASKED_LM: "masked_lm",
}


@router.get("/ping", include_in_schema=False)  # SageMaker's name for it
@router.get("/health")
async def health(request: Request) -> dict[str, str]:
    """200 while every engine thread is running and the server is not stopping."""
    if not service_of(request).healthy:
        raise RequestError(503, "unhealthy")
    return {"status": "ok"}


@router.get("/info")
async def info(request: Request) -> dict[str, Any]:
    """The default model and the limits in TEI's form, and all ``models``."""
    service = service_of(request)
    options, default = service.options, service.default
    return {
        "model_id": default.name,
        "model_sha": None,
        "model_dtype": _dtype(default),
        "model_type": _type(default),
        "max_concurrent_requests": options.max_concurrent_requests,
        "max_input_length": default.model.max_length,
        "max_batch_tokens": options.max_batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": options.max_client_batch_size,
        "max_input_characters": options.max_input_characters,
        "payload_limit": options.payload_limit,
        "auto_truncate": options.auto_truncate,
        "tokenization_workers": options.tokenization_workers,
        "version": sparsebert.__version__,
        "sha": None,
        "docker_label": None,
        "models": [_described(model) for model in service.models.values()],
    }


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """The server's metrics in Prometheus' text format."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE)


def _type(served: ServedModel) -> dict[str, Any]:
    """The model type in TEI's form; its clients recognise a SPLADE model by its pooling."""
    config = served.model.config
    if served.model.embedding_kind == "sparse":
        return {"embedding": {"pooling": "splade"}}
    kind = _TYPES[served.head]
    if kind == "classifier" and served.is_reranker:
        kind = "reranker"
    if kind == "embedding":
        modes = served.model.pooling.modes if served.model.pooling.embeds else ("tokens",)
        return {kind: {"pooling": "+".join(modes)}}
    if config.labels:
        named = dict(enumerate(config.labels))
        return {
            kind: {
                "id2label": {str(index): label for index, label in named.items()},
                "label2id": {label: index for index, label in named.items()},
            }
        }
    return {kind: {}}


def _dtype(served: ServedModel) -> str:
    """The data type in TEI's terms: ``1:2 int8`` is int8, ``dense fp32`` is float32."""
    kept = served.model.storage.split()[-1]
    return {"fp32": "float32", "fp16": "float16"}.get(kept, kept)


def _described(served: ServedModel) -> dict[str, Any]:
    model = served.model
    return {
        "model_id": served.name,
        "model_type": _type(served),
        "head": served.head.value,
        "storage": model.storage,
        "sparse": not model.storage.startswith("dense"),
        "bytes": model.nbytes,
        "hidden_size": model.config.hidden_size,
        "layers": model.config.num_hidden_layers,
        "labels": list(model.config.labels),
        "max_input_length": model.max_length,
        "instruction_set": model.instruction_set,
        "threads": model.threads,
        "workers": len(served.replicas),
        "prompts": list(served.prompts.texts),
        "routes": served.routes,
    }
