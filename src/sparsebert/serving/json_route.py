"""Routes whose body and response are JSON.

FastAPI documents them from their signatures, ``endpoint(request, body: SomeBody, ...)``. The code
that runs is ours: the body is read up to a size limit and decompressed, admission control gives the
request a slot, the JSON is parsed and validated, and the result is serialised by orjson, which
writes numpy arrays without creating a Python object for each number.
"""

from __future__ import annotations

import asyncio
import inspect
import zlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, get_type_hints

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from sparsebert.serving.admission import Reservation
from sparsebert.serving.errors import ClientGone, RequestError
from sparsebert.serving.service import service_of
from sparsebert.serving.stats import RequestStats
from sparsebert.tasks.expansion import inflated

Body = TypeVar("Body", bound=BaseModel)

_ORJSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY
_CODINGS = ("gzip", "x-gzip", "deflate")
_INLINE = 1 << 16  # bytes to decompress on the event loop; more would block other requests


class JsonRoute(APIRoute):
    """An APIRoute for ``async def endpoint(request: Request, body: SomeBody)``.

    The endpoint returns anything that orjson serialises.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        assert list(inspect.signature(self.endpoint).parameters)[:2] == ["request", "body"]
        self._body_type: type[BaseModel] = get_type_hints(self.endpoint)["body"]
        return self.answer

    async def answer(self, request: Request) -> Response:
        """The response to a request; raises RequestError and ClientGone.

        The middleware releases its slot when the response has been written.
        """
        stats = stats_of(request)
        raw = await read_body(request, service_of(request).options.payload_limit, stats.reservation)
        stats.reservation.acquire_slot()
        body = self.read(request, raw, self._body_type)
        result = await self.endpoint(request, body, **request.path_params)
        return await self.write(result, stats.headers())

    def read(self, _request: Request, raw: bytes, body_type: type[Body]) -> Body:
        """The body as the endpoint takes it; raises RequestError."""
        return parse_body(raw, body_type)

    async def write(self, result: Any, headers: dict[str, str]) -> Response:
        """The response for the endpoint's result."""
        return Response(await to_json(result), 200, headers, "application/json")


def stats_of(request: Request) -> RequestStats:
    """The statistics of a request."""
    stats: RequestStats = request.scope["sparsebert.stats"]
    return stats


def parse_body(raw: bytes, body_type: type[Body]) -> Body:
    """The body as ``body_type``; RequestError 400 if it is not JSON, 422 if it is invalid."""
    return validated(json_object(raw), body_type)


def json_object(raw: bytes) -> dict[str, Any]:
    """The body as a JSON object; raises RequestError."""
    try:
        content = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        reason = str(error).split(":")[0]  # the rest may quote the body
        raise RequestError(400, f"the body is not valid JSON: {reason}.") from None
    if not isinstance(content, dict):
        raise RequestError(422, "the body must be a JSON object.")
    return content


def validated(content: dict[str, Any], body_type: type[Body]) -> Body:
    """A JSON object as ``body_type``; RequestError 422 if it is invalid."""
    try:
        return body_type.model_validate(content)
    except ValidationError as error:
        raise _invalid(error) from None


def _invalid(error: ValidationError) -> RequestError:
    """The first validation error, as a sentence without anything that the client sent."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]
    ).removeprefix(".")
    param = str(first["loc"][0]) if first["loc"] else None
    message = first["msg"]
    if first["type"] == "missing":
        return RequestError(422, f"the body lacks {field}.", param=param)
    if first["type"] in ("string_too_short", "too_short"):
        return RequestError(422, f"{field} is empty: send at least one.", param=param)
    if first["type"] == "inputs":  # begins with the position in the field
        return RequestError(422, f"{field or 'the body'}{message}", param=param)
    return RequestError(422, f"{field}: {message[0].lower()}{message[1:]}.", param=param)


async def to_json(result: Any) -> bytes:
    """``result`` as JSON; other requests may run in between the arrays of a long list."""
    if isinstance(result, list) and sum(getattr(part, "size", 0) for part in result) > 1 << 18:
        parts = [b"["]
        for part in result:
            parts += (orjson.dumps(part, option=_ORJSON_OPTIONS), b",")
            await asyncio.sleep(0)
        parts[-1] = b"]"
        return b"".join(parts)
    return orjson.dumps(result, option=_ORJSON_OPTIONS)


async def read_body(request: Request, limit: int, reservation: Reservation) -> bytes:
    """The whole body, decompressed; its bytes are reserved. `connections` limits the time it takes.

    RequestError 413 as soon as it is larger than ``limit`` bytes, compressed or not, 415 for an
    unknown content-encoding and 400 for a corrupt one. ClientGone if it does not arrive.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in (*_CODINGS, "identity", ""):
        raise RequestError(
            415,
            "the body's content-encoding is not supported: use "
            f"{', '.join(_CODINGS[::2])} or none.",
            headers={"Accept-Encoding": ", ".join(_CODINGS[::2]), "Connection": "close"},
        )
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced[:20]) > limit:
        raise _too_large(limit)
    with reservation.waiting_for_client():
        raw = await _read(request, limit, reservation)
    if coding not in _CODINGS:
        return raw
    if len(raw) <= _INLINE:
        body = _decoded(raw, limit)
    else:
        body = await asyncio.to_thread(_decoded, raw, limit)
    reservation.free(len(raw))
    reservation.reserve(len(body))
    return body


async def _read(request: Request, limit: int, reservation: Reservation) -> bytes:
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
        reservation.reserve(len(parts[-1]))
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _decoded(raw: bytes, limit: int) -> bytes:
    """Decompress up to about ``limit`` bytes: a small body may be a decompression bomb."""
    body = bytearray()
    try:
        for block in inflated(raw, wbits=47):  # detects gzip or zlib by its header
            body += block
            if len(body) > limit:
                raise _too_large(limit)
    except zlib.error:
        raise _broken() from None
    return bytes(body)


def _broken() -> RequestError:
    return RequestError(400, "the body does not match its content-encoding, or is truncated.")


def _too_large(limit: int) -> RequestError:
    return RequestError(
        413,
        f"the body is larger than {limit} bytes (--payload-limit).",
        headers={"Connection": "close"},  # the rest of it is not read
    )
