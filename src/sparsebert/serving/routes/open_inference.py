"""The Open Inference Protocol, version 2: ``/v2/...``, as KServe and Triton speak it.

| input | datatype | shape |
|---|---|---|
| ``text`` (and ``text_pair``) | BYTES | [n] |
| or ``input_ids`` (and ``attention_mask``, ``token_type_ids``) | INT64 | [n, tokens] |

| output | shape | of |
|---|---|---|
| ``logits`` | [n, labels] | sequence classification |
| ``logits`` | [n, tokens, labels] | token classification |
| ``logits`` | [n, tokens, 2] | question answering: start and end |
| ``embedding`` | [n, hidden] | every model, pooled as its folder says |

Without ``outputs`` the first of these that the model has. Rows of texts shorter than the longest
are filled up with zeros. Binary tensor data is not spoken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

import sparsebert
from sparsebert.checkpoint import Head
from sparsebert.inference.token_ids import as_token_sequences
from sparsebert.inference.tokenizing import Tokens
from sparsebert.serving.asking import disconnected, pooled, prompt_for, rows_for
from sparsebert.serving.batching import EngineCall, Floats
from sparsebert.serving.errors import RequestError
from sparsebert.serving.served_model import ServedModel
from sparsebert.serving.service import service_of
from sparsebert.serving.tensors import RequestTensor, integers, strings
from sparsebert.serving.work_route import WorkRoute, work_of

router = APIRouter(route_class=WorkRoute)
status_router = APIRouter()

_VERSION = "1"
_TEXTS = ("text", "text_pair")
_IDS = ("input_ids", "attention_mask", "token_type_ids")


class RequestOutput(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    name: str


class InferParameters(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)

    truncate: bool | None = None


class InferRequest(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)

    id: str | None = None
    parameters: InferParameters = InferParameters()
    inputs: list[RequestTensor]
    outputs: list[RequestOutput] | None = None


class ResponseTensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class InferResponse(BaseModel):
    model_name: str
    model_version: str
    id: str | None
    outputs: list[ResponseTensor]


# Names of models have slashes where they are ids of the hub, so a path with a version must be tried
# before the one without: of two decorators the lower one is.


@status_router.get("/v2/health/live")
async def live() -> dict[str, bool]:
    """The process answers."""
    return {"live": True}


@status_router.get("/v2/health/ready")
async def ready(request: Request) -> dict[str, bool]:
    """Every model is ready, and the server is not stopping."""
    if not service_of(request).healthy:
        raise RequestError(503, "not ready")
    return {"ready": True}


@status_router.get("/v2")
async def server_metadata() -> dict[str, Any]:
    """Name and version of the server."""
    return {"name": "sparsebert", "version": sparsebert.__version__, "extensions": []}


@status_router.get("/v2/models/{name:path}/ready")
@status_router.get("/v2/models/{name:path}/versions/{version}/ready")
async def model_ready(request: Request, name: str, version: str = _VERSION) -> dict[str, Any]:
    """Whether one model is ready."""
    service = service_of(request)
    model = _model(request, name, version)
    if service.stopping or not model.alive:
        raise RequestError(503, "not ready")
    return {"name": model.name, "ready": True}


@router.post("/v2/models/{name:path}/infer", response_model=InferResponse)
@router.post("/v2/models/{name:path}/versions/{version}/infer", response_model=InferResponse)
async def infer(
    request: Request, body: InferRequest, name: str, version: str = _VERSION
) -> dict[str, Any]:
    """Run a model on texts or on token ids."""
    model = _model(request, name, version)
    known = _outputs(model)
    wanted = [output.name for output in body.outputs or ()] or [next(iter(known))]
    for each in wanted:
        if each not in known:
            raise RequestError(422, f"{model.name} has no such output; it has {', '.join(known)}.")
    if len(set(wanted)) < len(wanted):
        raise RequestError(422, "outputs names one twice.", param="outputs")
    given = {tensor.name: tensor for tensor in body.inputs}
    ask = _ask_texts if "text" in given else _ask_ids
    results = await asyncio.gather(
        *(ask(request, model, known[each], given, body.parameters.truncate) for each in wanted)
    )
    work = work_of(request)  # each output has counted the texts for itself
    work.items, work.characters, work.tokens = (
        count // len(wanted) for count in (work.items, work.characters, work.tokens)
    )
    return {
        "model_name": model.name,
        "model_version": _VERSION,
        **({"id": body.id} if body.id is not None else {}),
        "outputs": [
            {
                "name": each,
                "datatype": "FP32",
                "shape": list(array.shape),
                "data": np.ascontiguousarray(array).reshape(-1),
            }
            for each, array in zip(wanted, map(_filled, results), strict=True)
        ],
    }


@status_router.get("/v2/models/{name:path}")
@status_router.get("/v2/models/{name:path}/versions/{version}")
async def model_metadata(request: Request, name: str, version: str = _VERSION) -> dict[str, Any]:
    """The tensors that a model takes and gives; -1 is any size."""
    model = _model(request, name, version)
    config = model.model.config
    width = 2 if model.head is Head.QUESTION else len(config.labels)
    inputs = [{"name": each, "datatype": "BYTES", "shape": [-1]} for each in _TEXTS]
    inputs += [{"name": each, "datatype": "INT64", "shape": [-1, -1]} for each in _IDS]
    shapes = {
        each: [-1, -1, width] if call.per_token else [-1, width if each == "logits" else -1]
        for each, call in _outputs(model).items()
    }
    shapes["embedding"] = [-1, config.hidden_size]
    return {
        "name": model.name,
        "versions": [_VERSION],
        "platform": "sparsebert",
        "inputs": inputs,
        "outputs": [
            {"name": each, "datatype": "FP32", "shape": shape} for each, shape in shapes.items()
        ],
    }


def _model(request: Request, name: str, version: str) -> ServedModel:
    if version != _VERSION:
        raise RequestError(404, f"there is no such version: every model has version {_VERSION}.")
    return service_of(request).model(name)


def _outputs(model: ServedModel) -> dict[str, EngineCall]:
    embedding = pooled(model, normalize=model.model.pooling.normalize)
    if model.head in (Head.ENCODER, Head.MASKED_LM):  # a vocabulary a token would drown the client
        return {"embedding": embedding}
    return {
        "logits": EngineCall("head", per_token=model.head is not Head.SEQUENCE),
        "embedding": embedding,
    }


async def _ask_texts(
    request: Request,
    model: ServedModel,
    call: EngineCall,
    given: dict[str, RequestTensor],
    truncate: bool | None,
) -> list[Floats]:
    texts: Sequence[Any] = strings(given["text"])
    if "text_pair" in given:
        others = strings(given["text_pair"])
        if len(others) != len(texts):
            raise RequestError(422, f"text has {len(texts)} texts, and text_pair {len(others)}.")
        texts = list(zip(texts, others, strict=True))
    prompt = prompt_for(model, texts, None) if call.method == "pooled" else ""
    return await rows_for(
        request, model, call, texts, label="text", truncate=truncate, prompt=prompt
    )


async def _ask_ids(
    request: Request,
    model: ServedModel,
    call: EngineCall,
    given: dict[str, RequestTensor],
    _truncate: bool | None,
) -> list[Floats]:
    if "input_ids" not in given:
        raise RequestError(422, "inputs must hold text or input_ids.", param="inputs")
    service, work, config = service_of(request), work_of(request), model.model.config
    arrays = {name: integers(given[name]) for name in _IDS if name in given}
    ids = arrays["input_ids"]
    service.check_count(len(ids), "input_ids")
    for name, array in arrays.items():
        if array.shape != ids.shape:
            raise RequestError(422, f"{name} has not the shape of input_ids.", param="inputs")
    lengths = _lengths(arrays.get("attention_mask", np.ones_like(ids)))
    work.model = model.name
    work.items += len(ids)

    def rows(name: str) -> list[npt.NDArray[np.int64]]:
        return [row[:length] for row, length in zip(arrays[name], lengths, strict=True)]

    def read() -> list[Tokens]:
        return as_token_sequences(
            rows("input_ids"),
            rows("token_type_ids") if "token_type_ids" in arrays else None,
            vocab_size=config.vocab_size,
            type_vocab_size=config.type_vocab_size,
            max_positions=model.model.max_length,
        )

    return await model.run(work, call, read, lambda: disconnected(request))


def _lengths(mask: npt.NDArray[np.int64]) -> list[int]:
    """Tokens of each row of an attention mask; padding must stand behind them."""
    lengths = mask.sum(axis=1)
    if not np.array_equal(mask, np.arange(mask.shape[1]) < lengths[:, None]):
        raise RequestError(
            422, "attention_mask must be ones and behind them zeros in each row.", param="inputs"
        )
    return [int(length) for length in lengths]


def _filled(rows: Sequence[Floats]) -> Floats:
    """Rows as one array; ``[tokens, width]`` ones with zeros up to the longest."""
    if rows[0].ndim == 1:
        return np.stack(rows)
    longest = max(len(row) for row in rows)
    out = np.zeros((len(rows), longest, rows[0].shape[1]), np.float32)
    for place, row in enumerate(rows):
        out[place, : len(row)] = row
    return out
