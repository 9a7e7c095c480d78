"""Metadata, readiness and statistics in the Open Inference Protocol: ``GET /v2/...``.

Metadata and readiness are the protocol's; configuration, statistics and the index of models are
Triton's extensions, in the form in which its clients read them.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

import sparsebert
from sparsebert.checkpoint import Head
from sparsebert.serving.errors import RequestError
from sparsebert.serving.json_route import Body, JsonRoute
from sparsebert.serving.routes.open_inference import IDS, TEXTS, VERSION, model_of, outputs_of
from sparsebert.serving.schemas import Fields
from sparsebert.serving.served_model import ServedModel
from sparsebert.serving.service import service_of

# Within each group, paths that end in a fixed word are tried before those that end in a name.
router = APIRouter()


class IndexRoute(JsonRoute):
    """Accepts an empty body, with which Triton's client requests the index."""

    def read(self, request: Request, raw: bytes, body_type: type[Body]) -> Body:
        """The body; an empty one is ``{}``."""
        return super().read(request, raw or b"{}", body_type)


index_router = APIRouter(route_class=IndexRoute)

_EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]


@router.get("/v2/health/live")
async def live() -> dict[str, bool]:
    """200 while the process answers."""
    return {"live": True}


@router.get("/v2/health/ready")
async def ready(request: Request) -> dict[str, bool]:
    """200 while every model is ready and the server is not stopping."""
    if not service_of(request).healthy:
        raise RequestError(503, "not ready")
    return {"ready": True}


@router.get("/v2")
async def server_metadata() -> dict[str, Any]:
    """Name and version of the server."""
    return {"name": "sparsebert", "version": sparsebert.__version__, "extensions": _EXTENSIONS}


@router.get("/v2/models/stats")
async def all_statistics(request: Request) -> dict[str, Any]:
    """Statistics of every model, with times in nanoseconds."""
    models = service_of(request).models.values()
    return {"model_stats": [_statistics(model) for model in models]}


@router.get("/v2/models/{name:path}/ready")
@router.get("/v2/models/{name:path}/versions/{version}/ready")
async def model_ready(request: Request, name: str, version: str = VERSION) -> dict[str, Any]:
    """Whether one model is ready."""
    model = model_of(request, name, version)
    if service_of(request).stopping or not model.alive:
        raise RequestError(503, "not ready")
    return {"name": model.name, "ready": True}


@router.get("/v2/models/{name:path}/config")
@router.get("/v2/models/{name:path}/versions/{version}/config")
async def model_config(request: Request, name: str, version: str = VERSION) -> dict[str, Any]:
    """A model in the form of Triton's model configuration; -1 means any size."""
    model = model_of(request, name, version)
    inputs, outputs = _tensors(model)

    def described(tensors: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                "name": tensor["name"],
                "data_type": "TYPE_" + tensor["datatype"].replace("BYTES", "STRING"),
                "dims": tensor["shape"],
            }
            for tensor in tensors
        ]

    return {
        "name": model.name,
        "platform": "sparsebert",
        "backend": "sparsebert",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,  # each tensor's dims include the batch dimension
        "input": [
            {**tensor, "optional": tensor["name"] not in ("text", "input_ids")}
            for tensor in described(inputs)
        ],
        "output": described(outputs),
    }


@router.get("/v2/models/{name:path}/stats")
@router.get("/v2/models/{name:path}/versions/{version}/stats")
async def model_statistics(request: Request, name: str, version: str = VERSION) -> dict[str, Any]:
    """Statistics of one model, with times in nanoseconds."""
    return {"model_stats": [_statistics(model_of(request, name, version))]}


@router.get("/v2/models/{name:path}")
@router.get("/v2/models/{name:path}/versions/{version}")
async def model_metadata(request: Request, name: str, version: str = VERSION) -> dict[str, Any]:
    """The tensors that a model takes and returns; -1 means any size."""
    model = model_of(request, name, version)
    inputs, outputs = _tensors(model)
    return {
        "name": model.name,
        "versions": [VERSION],
        "platform": "sparsebert",
        "inputs": inputs,
        "outputs": outputs,
    }


class IndexRequest(Fields):
    ready: bool = False


@index_router.post(
    "/v2/repository/index",
    response_model=list[dict[str, str]],
    openapi_extra={"requestBody": {"required": False}},
)
async def index(request: Request, body: IndexRequest) -> list[dict[str, str]]:
    """The models; with ``ready``, only those that are ready."""
    found = []
    for model in service_of(request).models.values():
        state = "READY" if model.alive else "UNAVAILABLE"
        if model.alive or not body.ready:
            found.append({"name": model.name, "version": VERSION, "state": state, "reason": ""})
    return found


def _tensors(model: ServedModel) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    width = model.logits_width
    inputs = [{"name": each, "datatype": "BYTES", "shape": [-1]} for each in TEXTS]
    inputs += [{"name": each, "datatype": "INT64", "shape": [-1, -1]} for each in IDS]
    shapes = {
        "logits": [-1, width] if model.head is Head.SEQUENCE else [-1, -1, width],
        "embedding": [-1, model.model.embedding_width()],
    }
    outputs = [
        {"name": each, "datatype": "FP32", "shape": shapes[each]} for each in outputs_of(model)
    ]
    return inputs, outputs


def _statistics(model: ServedModel) -> dict[str, Any]:
    counted = model.stats

    def spent(seconds: float, count: int = counted.requests) -> dict[str, int]:
        return {"count": count, "ns": round(1e9 * seconds)}

    return {
        "name": model.name,
        "version": VERSION,
        "last_inference": round(1e3 * counted.last),  # milliseconds since 1970
        "inference_count": counted.sequences,
        "execution_count": counted.batches,
        "inference_stats": {
            "success": spent(counted.total),
            "fail": spent(0.0, counted.failed),
            "queue": spent(counted.queue),
            "compute_input": spent(counted.tokenization),
            "compute_infer": spent(counted.inference),
            "compute_output": spent(0.0),
            "cache_hit": spent(0.0, 0),
            "cache_miss": spent(0.0, 0),
        },
        "batch_stats": [],
        "memory_usage": [],
    }
