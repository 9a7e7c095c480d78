"""Routes that do work: a body of bounded size, a place among the requests, JSON, checks, answer.

FastAPI documents them from their signatures, ``endpoint(request, body: SomeBody, work: ...)``; the
way from bytes to the checked body and from the result to bytes is ours: orjson writes numpy arrays
without making a Python object of each number.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, get_type_hints

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from sparsebert.serving.body import read_body
from sparsebert.serving.errors import RequestError
from sparsebert.serving.service import service_of
from sparsebert.serving.work import Work

Body = TypeVar("Body", bound=BaseModel)

_ORJSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


class WorkRoute(APIRoute):
    """An APIRoute for ``async def endpoint(request: Request, body: SomeBody)``.

    The endpoint gives anything orjson writes.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        assert list(inspect.signature(self.endpoint).parameters)[:2] == ["request", "body"]
        self._body_type: type[BaseModel] = get_type_hints(self.endpoint)["body"]
        return self.answer

    async def answer(self, request: Request) -> Response:
        """The response to a request, or RequestError, or ClientGone.

        The place that it takes is given back by the gate, when the response has been written.
        """
        work = work_of(request)
        raw = await read_body(request, service_of(request).options.payload_limit, work.claim)
        work.claim.enter()
        body = self.read(request, raw, self._body_type)
        result = await self.endpoint(request, body, **request.path_params)
        return await self.write(result, work.headers())

    def read(self, _request: Request, raw: bytes, body_type: type[Body]) -> Body:
        """The body as the endpoint takes it, or RequestError."""
        return checked(raw, body_type)

    async def write(self, result: Any, headers: dict[str, str]) -> Response:
        """The response for what the endpoint gives."""
        return Response(await to_json(result), 200, headers, "application/json")


def work_of(request: Request) -> Work:
    """Where a request's work is counted."""
    work: Work = request.scope["sparsebert.work"]
    return work


def checked(raw: bytes, body_type: type[Body]) -> Body:
    """The body as ``body_type``, or RequestError: 400 if it is not JSON, 422 if it does not fit."""
    return fitted(json_object(raw), body_type)


def json_object(raw: bytes) -> dict[str, Any]:
    """The body as a JSON object, or RequestError."""
    try:
        content = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        reason = str(error).split(":")[0]  # what follows may quote the body
        raise RequestError(400, f"the body is not valid JSON: {reason}.") from None
    if not isinstance(content, dict):
        raise RequestError(422, "the body must be a JSON object.")
    return content


def fitted(content: dict[str, Any], body_type: type[Body]) -> Body:
    """A JSON object as ``body_type``, or RequestError 422."""
    try:
        return body_type.model_validate(content)
    except ValidationError as error:
        raise _unfit(error) from None


def _unfit(error: ValidationError) -> RequestError:
    """The first thing wrong, as a sentence that does not repeat what the client sent."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]
    ).removeprefix(".")
    param = str(first["loc"][0]) if first["loc"] else None
    message = first["msg"]
    if first["type"] == "missing":
        return RequestError(422, f"the body lacks {place}.", param=param)
    if first["type"] in ("string_too_short", "too_short"):
        return RequestError(422, f"{place} is empty: give at least one.", param=param)
    if first["type"] == "inputs":  # begins with where in the field it is
        return RequestError(422, f"{place}{message}", param=param)
    return RequestError(422, f"{place}: {message[0].lower()}{message[1:]}.", param=param)


async def to_json(result: Any) -> bytes:
    """``result`` as JSON; long lists of arrays let other requests run in between."""
    if isinstance(result, list) and sum(getattr(part, "size", 0) for part in result) > 1 << 18:
        parts = [b"["]
        for part in result:
            parts += (orjson.dumps(part, option=_ORJSON_OPTIONS), b",")
            await asyncio.sleep(0)
        parts[-1] = b"]"
        return b"".join(parts)
    return orjson.dumps(result, option=_ORJSON_OPTIONS)
