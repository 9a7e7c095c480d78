"""ASGI middleware, outermost first: authentication with logging and metrics, gzip, the fast path.

Plain ASGI rather than Starlette's slower BaseHTTPMiddleware: every request passes through it.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import orjson
from fastapi import Request
from starlette.middleware.gzip import GZipResponder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sparsebert.serving.admission import Reservation
from sparsebert.serving.connections import ABORT
from sparsebert.serving.errors import ClientGone, RequestError, error_answer
from sparsebert.serving.json_route import JsonRoute
from sparsebert.serving.service import Service
from sparsebert.serving.stats import RequestStats

log = logging.getLogger("sparsebert.serving")

_PUBLIC = {"/health", "/ping", "/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json"}
_PUBLIC_PREFIXES = ("/page/", "/static-offline-docs/")
_GONE = 499  # nginx's status for a client that disconnected; only in logs and metrics
_CHUNK = 1 << 16  # bytes of a response body that are written at a time
_MIN_COMPRESSED = 4096  # bytes: compressing a smaller response takes longer than sending it


class RequestMiddleware:
    """API key, log line, metrics and error format of every request."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._root = service.options.root_path
        key = service.options.api_key
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope, path = self._routed(scope)
        abort = scope.get("extensions", {}).get(ABORT, {}).get("call")
        reservation = Reservation(self._service.admission, abort)
        stats = scope["sparsebert.stats"] = RequestStats(reservation)
        with_body = scope["method"] != "HEAD"
        response = _ResponseWriter(self._service, reservation, send, with_body=with_body)
        if not response.with_body:
            scope["method"] = "GET"
        try:
            self._check_key(scope, path)
            await self._app(scope, receive, response.send)
        except ClientGone:
            response.status = _GONE
        except RequestError as error:
            await send_error(error, path, response.send)
        except Exception as error:
            # Only its location: the message might contain what the client sent.
            log.error("fault", extra={"fields": _location_of(error)})
            if response.status == 0:
                fault = RequestError(500, "internal server error.")
                await send_error(fault, path, response.send)
        finally:
            reservation.release()
            self._record(scope, response.status, stats)

    def _routed(self, scope: Scope) -> tuple[Scope, str]:
        """The scope as the routes expect it, and the path without a proxy's root path.

        The proxy may or may not have stripped it; a trailing slash makes no difference.
        """
        path: str = scope["path"]
        root = self._root
        if root and (path == root or path.startswith(root + "/")):
            path = path[len(root) :]
        if path[-1:] == "/" or not path:
            path = path.rstrip("/") or "/"
        return {**scope, "path": root + path, "root_path": root}, path

    def _check_key(self, scope: Scope, path: str) -> None:
        if self._key is None or is_public(scope["method"], path):
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        # The scheme is case-insensitive (RFC 9110, 11.1).
        if scheme.lower() != b"bearer" or not hmac.compare_digest(key.strip(), self._key):
            raise RequestError(
                401,
                "this server needs a key: send it as 'Authorization: Bearer KEY'.",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _record(self, scope: Scope, status: int, stats: RequestStats) -> None:
        seconds = perf_counter() - stats.started
        route = getattr(scope.get("route"), "path", "other")
        self._service.metrics.observe_request(route, status, seconds, stats)
        if status != _GONE and (model := self._service.models.get(stats.model)):
            model.stats.count(stats, status, seconds)
        if log.isEnabledFor(logging.INFO):
            fields: dict[str, Any] = {
                "method": scope["method"],
                "route": route,
                "status": status,
                "ms": round(1e3 * seconds, 2),
            }
            if stats.model:
                fields |= {
                    "model": stats.model,
                    "texts": stats.items,
                    "tokens": stats.tokens,
                    "queue_ms": round(1e3 * stats.queue, 2),
                    "engine_ms": round(1e3 * stats.inference, 2),
                }
            log.info("request", extra={"fields": fields})


class _ResponseWriter:
    """Sends a response with backpressure.

    A large body is written in chunks, each once all but a few kilobytes of the previous one have
    been read, so that a request ends, and releases its slot, when its response has been written.
    """

    def __init__(
        self, service: Service, reservation: Reservation, send: Send, *, with_body: bool
    ) -> None:
        self._service = service
        self._reservation = reservation
        self._send = send
        self.with_body = with_body
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._service.stopping:  # the client's next request goes to another server
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await self._send(message)
            return
        body = message.get("body", b"") if self.with_body else b""
        more = message.get("more_body", False)
        self._reservation.reserve_response(len(body))
        with self._reservation.waiting_for_client():
            for start in range(0, len(body) or 1, _CHUNK):
                end = start + _CHUNK
                await self._send(
                    {
                        "type": "http.response.body",
                        "body": body[start:end],
                        "more_body": more or end < len(body),
                    }
                )
        self._reservation.free(len(body))


class FastPath:
    """Dispatches POST requests for ``routes`` directly.

    FastAPI's own middleware and routing take about as long as the rest of a request.
    """

    def __init__(self, app: ASGIApp, routes: Mapping[str, JsonRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = None
        if scope["type"] == "http" and scope["method"] == "POST":
            route = self._routes.get(route_path(scope))
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"], scope["path_params"] = route, {}
        response = await route.answer(Request(scope, receive))
        await response(scope, receive, send)


class Compression:
    """Gzips responses for clients that accept it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and accepts_gzip(scope):
            app = GZipResponder(app, _MIN_COMPRESSED, compresslevel=1)
        await app(scope, receive, send)


def route_path(scope: Scope) -> str:
    """The path without the root path, as the routes have it."""
    path: str = scope["path"]
    return path.removeprefix(scope["root_path"])


def is_public(method: str, path: str) -> bool:
    """Whether a request needs no key: health, documentation and the files of the web page."""
    if method != "GET":
        return method == "OPTIONS"
    return path in _PUBLIC or path == "/" or path.startswith(_PUBLIC_PREFIXES)


async def send_error(error: RequestError, path: str, send: Send) -> None:
    """Send an error in the form that clients of the path expect."""
    status, content = error_answer(error, path)
    body = orjson.dumps(content)
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **error.headers,
    }
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})


def _location_of(error: Exception) -> dict[str, Any]:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    location = "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return {"kind": type(error).__name__, "at": location}


def accepts_gzip(scope: Scope) -> bool:
    """Whether a request accepts gzip (RFC 9110, 12.5.3): it is named, and not with `q=0`."""
    for name, value in scope["headers"]:
        if name == b"accept-encoding":
            for each in value.lower().split(b","):
                coding, _, weight = each.partition(b";")
                if coding.strip() == b"gzip":
                    return bool(weight.replace(b" ", b"").rstrip(b".0") != b"q=")
    return False
