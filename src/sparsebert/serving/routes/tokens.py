"""``/tokenize`` and ``/decode``, as in text-embeddings-inference."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request
from tokenizers import Encoding

from sparsebert.serving.asking import naming, prompt_for
from sparsebert.serving.errors import RequestError
from sparsebert.serving.schemas import DecodeRequest, SimpleToken, TokenizeRequest
from sparsebert.serving.service import service_of
from sparsebert.serving.work_route import WorkRoute, work_of

router = APIRouter(route_class=WorkRoute)

_LARGEST_ID = (1 << 32) - 1  # the tokenizer's ids are unsigned 32-bit numbers


@router.post("/tokenize", response_model=list[list[SimpleToken]])
async def tokenize(request: Request, body: TokenizeRequest) -> Any:
    """The tokens of each text, uncut; ``start`` and ``stop`` count its characters."""
    service, work = service_of(request), work_of(request)
    model = service.model(body.model, "/tokenize")
    service.check_count(len(body.inputs.items), "inputs")
    texts = []
    # The tokens of the text as it is: no prompt that the request does not name.
    prompt = prompt_for(model, body.inputs.items, body.prompt_name, default=False)
    name = naming("inputs", single=body.inputs.single)
    for place, item in enumerate(body.inputs.items):
        text = f"{prompt}{item}"
        service.check_characters(len(text), name(place))
        work.characters += len(text)
        texts.append(text)
    work.model, work.items = model.name, len(texts)
    backend = model.model.tokenizer.backend

    def read() -> list[orjson.Fragment]:
        written = []
        # Text by text, as bytes: a token is small, and the object that tells of it large.
        for text in texts:
            # A batch, though of one: only encode_batch lets other threads run meanwhile.
            (found,) = backend.encode_batch([text], add_special_tokens=body.add_special_tokens)
            work.tokens += len(found)
            written.append(orjson.Fragment(orjson.dumps(_tokens(found, text))))
        return written

    return await model.read(read)


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


@router.post("/decode", response_model=list[str])
async def decode(request: Request, body: DecodeRequest) -> Any:
    """The text of each list of token ids."""
    service, work = service_of(request), work_of(request)
    model = service.model(body.model, "/decode")
    service.check_count(len(body.ids.items), "ids")
    for place, ids in enumerate(body.ids.items):
        for index, token in enumerate(ids):
            if not 0 <= token <= _LARGEST_ID:
                raise RequestError(
                    422, f"ids[{place}][{index}] is not a token id.", param="ids", kind="Tokenizer"
                )
    work.model, work.items = model.name, len(body.ids.items)
    work.tokens = sum(map(len, body.ids.items))
    backend = model.model.tokenizer.backend
    return await model.read(
        lambda: backend.decode_batch(body.ids.items, skip_special_tokens=body.skip_special_tokens)
    )
