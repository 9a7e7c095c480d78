"""A request's body: of bounded size, and out of gzip where it came so.

Its time is bounded by the connection.
"""

from __future__ import annotations

import asyncio
import zlib

from fastapi import Request

from sparsebert.serving.admission import Claim
from sparsebert.serving.errors import ClientGone, RequestError

_CODINGS = ("gzip", "x-gzip", "deflate")
_AT_ONCE = 1 << 16  # bytes that are decoded where they are; more would hold up other requests


async def read_body(request: Request, limit: int, claim: Claim) -> bytes:
    """The whole body, decoded; ``claim`` holds its bytes.

    RequestError: 413 as soon as it is larger than ``limit`` bytes, decoded or not, 415 for a coding
    that is not known and 400 for one that does not hold. ClientGone if it does not arrive.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in (*_CODINGS, "identity", ""):
        raise RequestError(
            415,
            f"the body's content-encoding is not supported: send {' or '.join(_CODINGS[::2])}, "
            "or none.",
            headers={"Accept-Encoding": ", ".join(_CODINGS[::2]), "Connection": "close"},
        )
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced[:20]) > limit:
        raise _too_large(limit)
    with claim.waits_for_client():
        raw = await _read(request, limit, claim)
    if coding not in _CODINGS:
        return raw
    if len(raw) <= _AT_ONCE:
        body = _decoded(raw, limit)
    else:
        body = await asyncio.to_thread(_decoded, raw, limit)
    claim.drop(len(raw))
    claim.hold(len(body))
    return body


async def _read(request: Request, limit: int, claim: Claim) -> bytes:
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
        claim.hold(len(parts[-1]))
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _decoded(raw: bytes, limit: int) -> bytes:
    """Never more than ``limit`` bytes and one: a small body may be a bomb."""
    body = b""
    while True:  # gzip may have several members, one after the other
        decoder = zlib.decompressobj(wbits=47)  # the header of gzip or zlib says which it is
        try:
            body += decoder.decompress(raw, limit + 1 - len(body))
        except zlib.error:
            raise _broken() from None
        if len(body) > limit:
            raise _too_large(limit)
        if not decoder.eof:
            raise _broken()
        raw = decoder.unused_data
        if not raw:
            return body


def _broken() -> RequestError:
    return RequestError(400, "the body is not what its content-encoding says, or ends too early.")


def _too_large(limit: int) -> RequestError:
    return RequestError(
        413,
        f"the body is larger than {limit} bytes (--payload-limit).",
        headers={"Connection": "close"},  # the rest of it is not read
    )
