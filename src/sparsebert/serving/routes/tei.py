"""The routes of text-embeddings-inference, except ``/embed_sparse`` and ``/rerank``.

``/embed``, ``/embed_all``, ``/similarity``, ``/predict``, ``/tokenize``, ``/decode``, and
``POST /``, which `huggingface_hub.InferenceClient(base_url)` uses because it knows no routes;
SageMaker sends the same to ``/invocations``.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request
from pydantic import ConfigDict
from tokenizers import Encoding

from sparsebert.checkpoint import Head
from sparsebert.inference.batching import Floats
from sparsebert.inference.labelling import apply_function
from sparsebert.serving.errors import RequestError
from sparsebert.serving.inference import (
    check_dimensions,
    checked_items,
    embed_tokens,
    infer_logits,
    prompt_for,
    require_head,
    truncate_dimensions,
    truncation_of,
)
from sparsebert.serving.inference import (
    embed as embed_texts,
)
from sparsebert.serving.inputs import TextInputs
from sparsebert.serving.json_route import JsonRoute, stats_of, validated
from sparsebert.serving.routes.answering import answer
from sparsebert.serving.routes.reranking import rerank
from sparsebert.serving.routes.sparse_embeddings import embed_sparse
from sparsebert.serving.routes.tagging import fill, tag
from sparsebert.serving.schemas import (
    AnswerRequest,
    DecodeRequest,
    EmbedAllRequest,
    EmbedRequest,
    EmbedSparseRequest,
    Fields,
    FillRequest,
    Prediction,
    PredictRequest,
    RerankRequest,
    SimilarityRequest,
    SimpleToken,
    TagRequest,
    TokenizeRequest,
)
from sparsebert.serving.service import service_of

embedding_router = APIRouter(route_class=JsonRoute)
classification_router = APIRouter(route_class=JsonRoute)
token_router = APIRouter(route_class=JsonRoute)
root_router = APIRouter(route_class=JsonRoute)

_LARGEST_ID = (1 << 32) - 1  # ids of the tokenizers library are unsigned 32-bit numbers


@embedding_router.post("/embed", response_model=list[list[float]])
async def embed(request: Request, body: EmbedRequest) -> Any:
    """One embedding for each text, pooled as the model's folder says."""
    model = service_of(request).model(body.model, "/embed")
    check_dimensions(model, body.dimensions)
    embeddings = await embed_texts(
        request,
        model,
        body.inputs,
        normalize=body.normalize,
        truncation=truncation_of(request, body.truncate, body.truncation_direction),
        prompt=prompt_for(model, body.inputs.items, body.prompt_name),
    )
    return truncate_dimensions(embeddings, body.dimensions, normalize=body.normalize)


@embedding_router.post("/embed_all", response_model=list[list[list[float]]])
async def embed_all(request: Request, body: EmbedAllRequest) -> Any:
    """A vector for each token of each text: the last hidden state.

    With a multi-vector model (ColBERT), vectors are projected and some left out, as its folder says
    for queries or documents.
    """
    model = service_of(request).model(body.model, "/embed_all")
    own = body.prompt_name is None
    return await embed_tokens(
        request,
        model,
        body.inputs,
        task=body.task,
        truncation=truncation_of(request, body.truncate, body.truncation_direction),
        prompt=None if own else prompt_for(model, body.inputs.items, body.prompt_name),
    )


@embedding_router.post("/similarity", response_model=list[float])
async def similarity(request: Request, body: SimilarityRequest) -> Any:
    """The cosine of the source sentence's embedding with that of each sentence."""
    model = service_of(request).model(body.model, "/similarity")
    parameters = body.parameters
    truncation = truncation_of(
        request,
        body.truncate if parameters.truncate is None else parameters.truncate,
        parameters.truncation_direction or body.truncation_direction,
    )

    async def embedded(inputs: TextInputs, label: str) -> list[Floats]:
        return await embed_texts(
            request,
            model,
            inputs,
            normalize=True,
            label=label,
            truncation=truncation,
            prompt=prompt_for(model, inputs.items, parameters.prompt_name),
        )

    sentences, source = await asyncio.gather(
        embedded(TextInputs([*body.inputs.sentences], False), "inputs.sentences"),
        embedded(TextInputs([body.inputs.source_sentence], True), "inputs.source_sentence"),
    )
    return np.stack(sentences) @ source[0]


@classification_router.post("/predict", response_model=list[Prediction] | list[list[Prediction]])
async def predict(request: Request, body: PredictRequest) -> Any:
    """Labels with scores, best first: one list for a single text or pair, one per text for a batch.

    Scores are probabilities, or logits with ``raw_scores``.
    """
    model = service_of(request).model(body.model, "/predict")
    require_head(model, Head.SEQUENCE, "classify")
    logits = await infer_logits(
        request,
        model,
        body.inputs,
        truncation=truncation_of(request, body.truncate, body.truncation_direction),
    )
    parameters = body.parameters
    function = "none" if body.raw_scores else model.model.score_function
    if parameters and parameters.function_to_apply:
        function = parameters.function_to_apply
    scores = apply_function(logits, function)
    labels = model.model.config.labels
    order = np.argsort(-scores, axis=-1, kind="stable")[
        :, : parameters.top_k if parameters else None
    ]
    found = [
        [{"score": row[index], "label": labels[index]} for index in indices]
        for row, indices in zip(scores, order.tolist(), strict=True)
    ]
    # Hugging Face's pipelines return a list of lists for a single text too; its clients expect it.
    return found[0] if body.inputs.single and parameters is None else found


@token_router.post("/tokenize", response_model=list[list[SimpleToken]])
async def tokenize(request: Request, body: TokenizeRequest) -> Any:
    """The tokens of each text, not truncated; ``start`` and ``stop`` are character positions."""
    stats = stats_of(request)
    model = service_of(request).model(body.model, "/tokenize")
    # The tokens of the text as it is: no prompt unless the request names one.
    prompt = prompt_for(model, body.inputs.items, body.prompt_name, default=False)
    texts = [*map(str, checked_items(request, model, body.inputs, prompt=prompt))]
    backend = model.model.tokenizer.backend

    def read() -> list[orjson.Fragment]:
        written = []
        # Serialised text by text: a token's dictionary is much larger than its JSON.
        for text in texts:
            # A batch of one: only encode_batch lets other threads run in the meantime.
            (found,) = backend.encode_batch([text], add_special_tokens=body.add_special_tokens)
            stats.tokens += len(found)
            tokens = orjson.dumps(_tokens(found, text))
            stats.reservation.reserve(len(tokens))
            written.append(orjson.Fragment(tokens))
        return written

    return await model.in_tokenizer_pool(read)


def _tokens(encoding: Encoding, text: str) -> list[dict[str, Any]]:
    return [
        {"id": token, "text": string, "special": True, "start": None, "stop": None}
        if special
        else {
            "id": token,
            "text": text[start:stop],
            "special": False,
            "start": start,
            "stop": stop,
        }
        for token, string, special, (start, stop) in zip(
            encoding.ids,
            encoding.tokens,
            encoding.special_tokens_mask,
            encoding.offsets,
            strict=True,
        )
    ]


@token_router.post("/decode", response_model=list[str])
async def decode(request: Request, body: DecodeRequest) -> Any:
    """The text of each list of token ids."""
    service, stats = service_of(request), stats_of(request)
    model = service.model(body.model, "/decode")
    service.check_count(len(body.ids.items), "ids")
    for row, ids in enumerate(body.ids.items):
        for column, token in enumerate(ids):
            if not 0 <= token <= _LARGEST_ID:
                raise RequestError(
                    422, f"ids[{row}][{column}] is not a token id.", param="ids", kind="Tokenizer"
                )
    stats.model, stats.items = model.name, len(body.ids.items)
    stats.tokens = sum(map(len, body.ids.items))
    backend = model.model.tokenizer.backend
    return await model.in_tokenizer_pool(
        lambda: backend.decode_batch(body.ids.items, skip_special_tokens=body.skip_special_tokens)
    )


class AnyRequest(Fields):
    """The body of the route that fits, which is validated as such."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None


@root_router.post("/invocations", include_in_schema=False)
@root_router.post("/", include_in_schema=False)  # its body is another route's
async def ask_default(request: Request, body: AnyRequest) -> Any:
    """Answer as the route that fits the model and body, of those with `inputs` or a `query`."""
    content = body.model_dump(exclude_unset=True)
    if "query" in content:
        return await rerank(request, validated(content, RerankRequest))
    inputs = content.get("inputs")
    if isinstance(inputs, dict) and "question" in inputs:
        return await answer(request, validated(content, AnswerRequest))
    model = service_of(request).model(body.model, "/")
    if model.head is Head.QUESTION:
        return await answer(request, validated(content, AnswerRequest))
    if model.head is Head.SEQUENCE:
        return await predict(request, validated(content, PredictRequest))
    if model.head is Head.TOKEN and not isinstance(inputs, dict):
        return await tag(request, validated(content, TagRequest))
    kind = model.model.embedding_kind
    if kind == "sparse":
        return await embed_sparse(request, validated(content, EmbedSparseRequest))
    if kind == "tokens":
        return await embed_all(request, validated(content, EmbedAllRequest))
    if model.head is Head.MASKED_LM and not isinstance(inputs, dict):
        return await fill(request, validated(content, FillRequest))
    if isinstance(inputs, dict):
        return await similarity(request, validated(content, SimilarityRequest))
    return await embed(request, validated(content, EmbedRequest))
