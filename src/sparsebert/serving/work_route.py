"""Routes that do work: a place among the requests, a body of bounded size, JSON, checks, answer.

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

from sparsebert.serving.errors import ClientGone, RequestError
from sparsebert.serving.service import service_of
from sparsebert.serving.work import Work

Body = TypeVar("Body", bound=BaseModel)

_BODY_SECONDS = 30.0  # to send a body in: a place is not held for one that never comes
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
        """The response to a request, or RequestError, or ClientGone."""
        service = service_of(request)
        service.enter()
        try:
            raw = await read_body(request, service.options.payload_limit)
            body = self.read(request, raw, self._body_type)
            result = await self.endpoint(request, body, **request.path_params)
        finally:
            service.leave()
        return await self.write(result, work_of(request).headers())

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


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body, or RequestError: 413 as soon as it is larger than ``limit`` bytes, 408."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced[:20]) > limit:
        raise _too_large(limit)
    try:
        return await asyncio.wait_for(_read(request, limit), _BODY_SECONDS)
    except asyncio.TimeoutError:
        raise RequestError(
            408,
            f"the body did not arrive within {_BODY_SECONDS:.0f} seconds.",
            headers={"Connection": "close"},
        ) from None


async def _read(request: Request, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> RequestError:
    return RequestError(
        413,
        f"the body is larger than {limit} bytes (--payload-limit).",
        headers={"Connection": "close"},  # the rest of it is not read
    )


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
        parts = []
        for part in result:
            parts.append(orjson.dumps(part, option=_ORJSON_OPTIONS))
            await asyncio.sleep(0)
        return b"[" + b",".join(parts) + b"]"
    return orjson.dumps(result, option=_ORJSON_OPTIONS)
