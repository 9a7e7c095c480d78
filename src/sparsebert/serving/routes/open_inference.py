"""The Open Inference Protocol's inference, as KServe and Triton speak it: ``/v2/models/.../infer``.

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

Without ``outputs``, the response has the first of these that the model has. Rows of texts shorter
than the longest are padded with zeros. Tensors are JSON or Triton's binary data.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from sparsebert.checkpoint import Head
from sparsebert.inference.batching import EngineCall, Floats
from sparsebert.inference.sequences import Tokens, as_token_sequences
from sparsebert.serving.admission import Reservation
from sparsebert.serving.batching import NUMBER_BYTES
from sparsebert.serving.errors import RequestError
from sparsebert.serving.inference import (
    disconnected,
    embedding_call,
    infer_each,
    prompt_for,
    truncation_of,
)
from sparsebert.serving.inputs import PredictInputs
from sparsebert.serving.json_route import stats_of
from sparsebert.serving.schemas import Fields, Parameters
from sparsebert.serving.served_model import ServedModel
from sparsebert.serving.service import service_of
from sparsebert.serving.tensors import RequestTensor, TensorRoute, Tensors, integers, strings

router = APIRouter(route_class=TensorRoute)

VERSION = "1"
TEXTS = ("text", "text_pair")
IDS = ("input_ids", "attention_mask", "token_type_ids")


class OutputParameters(Parameters):
    binary_data: bool = False


class RequestOutput(Fields):
    name: str
    parameters: OutputParameters = OutputParameters()


class InferParameters(Parameters):
    # For stateful models and for queues; nothing here depends on them.
    harmless: ClassVar[tuple[str, ...]] = (
        "sequence_id",
        "sequence_start",
        "sequence_end",
        "priority",
        "timeout",
    )

    truncate: bool | None = None
    binary_data_output: bool = Field(False, description="Return all outputs as binary data.")


class InferRequest(Parameters):
    harmless: ClassVar[tuple[str, ...]] = ("model_name", "model_version")  # of KServe

    id: str | None = None
    parameters: InferParameters = InferParameters.model_validate({})
    inputs: list[RequestTensor]
    outputs: list[RequestOutput] | None = None


class ResponseTensor(BaseModel):
    name: str
    datatype: Literal["FP32"]
    shape: list[int]
    parameters: dict[str, int] | None = None
    data: list[float] | None = None


class InferResponse(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[ResponseTensor]


# Model names that are hub ids contain slashes, so the path with a version must be tried before the
# one without. Of two decorators, the lower one is tried first.


@router.post("/v2/models/{name:path}/infer", response_model=InferResponse)
@router.post("/v2/models/{name:path}/versions/{version}/infer", response_model=InferResponse)
async def infer(request: Request, body: InferRequest, name: str, version: str = VERSION) -> Tensors:
    """Run a model on texts or on token ids."""
    model = model_of(request, name, version)
    known = outputs_of(model)
    if not known:
        raise RequestError(
            424,
            f"{model.name} has neither logits nor an embedding to return here. It answers "
            f"{', '.join(model.routes)}.",
        )
    requested = body.outputs or [RequestOutput(name=next(iter(known)))]
    wanted = [output.name for output in requested]
    for each in wanted:
        if each not in known:
            raise RequestError(422, f"{model.name} has no such output; it has {', '.join(known)}.")
    if len(set(wanted)) < len(wanted):
        raise RequestError(422, "outputs lists the same output twice.", param="outputs")
    given = {tensor.name: tensor for tensor in body.inputs}
    if len(given) < len(body.inputs):
        raise RequestError(422, "inputs lists the same tensor twice.", param="inputs")
    if not (given.keys() <= {*TEXTS} or given.keys() <= {*IDS}):
        raise RequestError(
            422,
            f"inputs must be text (and text_pair) or {IDS[0]} (and {', '.join(IDS[1:])}), and no "
            "others.",
            param="inputs",
        )
    prompt = prompt_for(model, [""], None) if "text" in given else ""
    calls = {each: known[each] for each in wanted}
    if "embedding" in calls:
        calls["embedding"], finish = _embedding_call(model, model.model.prompt_tokens(prompt))
    infer_inputs = _infer_texts if "text" in given else _infer_ids
    results = await infer_inputs(request, model, calls, given, body)
    if "embedding" in results:
        results["embedding"] = await finish(results["embedding"])
    if "logits" in results and model.head is Head.SEQUENCE:
        rows = results["logits"]
        results["logits"] = await model.in_tokenizer_pool(lambda: model.model.logits_of(rows))
    outputs: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for output in requested:
        array = _padded(results[output.name], stats_of(request).reservation)
        described = {"name": output.name, "datatype": "FP32", "shape": list(array.shape)}
        if output.parameters.binary_data or body.parameters.binary_data_output:
            binary.append(array.astype("<f4", copy=False).tobytes())
            outputs.append({**described, "parameters": {"binary_data_size": len(binary[-1])}})
        else:
            outputs.append({**described, "data": np.ascontiguousarray(array).reshape(-1)})
    content = {
        "model_name": model.name,
        "model_version": VERSION,
        **({"id": body.id} if body.id is not None else {}),
        "outputs": outputs,
    }
    return Tensors(content, binary)


def model_of(request: Request, name: str, version: str) -> ServedModel:
    """The model of that name and version; RequestError 404 if there is none."""
    if version != VERSION:
        raise RequestError(
            404, f"there is no such version: every model has only version {VERSION}."
        )
    return service_of(request).named(name)


def outputs_of(model: ServedModel) -> dict[str, EngineCall]:
    """The outputs of a model, the default first."""
    known: dict[str, EngineCall] = {}
    if model.head is Head.SEQUENCE:
        known["logits"] = model.model.logits_call
    elif model.head in (Head.QUESTION, Head.TOKEN):  # masked-LM logits would be too large
        known["logits"] = EngineCall("head", per_token=True)
    if model.model.pooling.embeds:
        known["embedding"], _ = _embedding_call(model, 0)
    return known


def _embedding_call(
    model: ServedModel, skipped: int
) -> tuple[EngineCall, Callable[[list[Floats]], Awaitable[list[Floats]]]]:
    return embedding_call(model, skipped, normalize=model.model.pooling.normalize)


async def _infer_texts(
    request: Request,
    model: ServedModel,
    calls: dict[str, EngineCall],
    given: dict[str, RequestTensor],
    body: InferRequest,
) -> dict[str, list[Floats]]:
    """The results of each output; texts are tokenised once for outputs with the same prompt."""
    paired = "text_pair" in given
    texts: Sequence[Any] = strings(given["text"], paired=paired)
    if paired:
        others = strings(given["text_pair"], paired=True)
        if len(others) != len(texts):
            raise RequestError(422, f"text has {len(texts)} texts, but text_pair {len(others)}.")
        texts = list(zip(texts, others, strict=True))
    usual = {"embedding": prompt_for(model, texts, None), "logits": model.model.score_prompt}
    prompts = {name: usual[name] for name in calls}
    results: dict[str, list[Floats]] = {}
    for prompt in dict.fromkeys(prompts.values()):
        names = [name for name in calls if prompts[name] == prompt]
        found, _ = await infer_each(
            request,
            model,
            [calls[name] for name in names],
            PredictInputs([*texts], False),
            label="text",
            truncation=truncation_of(request, body.parameters.truncate),
            prompt=prompt,
            advice='"parameters": {"truncate": true}',
        )
        results |= zip(names, found, strict=True)
    stats_of(request).items = len(texts)
    return results


async def _infer_ids(
    request: Request,
    model: ServedModel,
    calls: dict[str, EngineCall],
    given: dict[str, RequestTensor],
    body: InferRequest,
) -> dict[str, list[Floats]]:
    if "input_ids" not in given:
        raise RequestError(422, "inputs must include text or input_ids.", param="inputs")
    if body.parameters.truncate:
        raise RequestError(
            422, "truncate can only be used with texts: input_ids are never truncated."
        )
    service, stats, config = service_of(request), stats_of(request), model.model.config
    arrays = {name: integers(given[name]) for name in IDS if name in given}
    ids = arrays["input_ids"]
    service.check_count(len(ids), "input_ids")
    for name, array in arrays.items():
        if array.shape != ids.shape:
            raise RequestError(
                422, f"{name} must have the same shape as input_ids.", param="inputs"
            )
    lengths = _lengths(arrays.get("attention_mask", np.ones_like(ids)))
    stats.model = model.name
    stats.items += len(ids)

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

    found, _ = await model.run(stats, [*calls.values()], read, lambda: disconnected(request))
    return dict(zip(calls, found, strict=True))


def _lengths(mask: npt.NDArray[np.int64]) -> list[int]:
    """The number of tokens of each row of an attention mask; padding must be on the right."""
    lengths = mask.sum(axis=1)
    if not np.array_equal(mask, np.arange(mask.shape[1]) < lengths[:, None]):
        raise RequestError(
            422, "each row of attention_mask must be ones followed by zeros.", param="inputs"
        )
    return [int(length) for length in lengths]


def _padded(arrays: Sequence[Floats], reservation: Reservation) -> Floats:
    """All in one array; those of ``[tokens, width]`` are padded with zeros to the longest.

    The padding, which may be many times as large as the rest, is reserved; raises RequestError.
    """
    if arrays[0].ndim == 1:
        return np.stack(arrays)
    lengths, width = [len(each) for each in arrays], arrays[0].shape[1]
    longest = max(lengths)
    reservation.reserve((len(arrays) * longest - sum(lengths)) * width * NUMBER_BYTES)
    out = np.zeros((len(arrays), longest, width), np.float32)
    for index, array in enumerate(arrays):
        out[index, : len(array)] = array
    return out
