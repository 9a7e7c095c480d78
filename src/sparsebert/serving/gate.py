"""What every request passes first and last: the key, the log line, the metrics, the error's form.

Plain ASGI, for it is on everyone's way.
"""

from __future__ import annotations

import hmac
import logging
from time import perf_counter
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sparsebert.serving.admission import Claim
from sparsebert.serving.connections import ABORT
from sparsebert.serving.errors import ClientGone, RequestError, error_answer
from sparsebert.serving.service import Service
from sparsebert.serving.work import Work

log = logging.getLogger("sparsebert.serving")

_OPEN = {"/health", "/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json"}
_OPEN_BELOW = ("/page/", "/static-offline-docs/")
_GONE = 499  # nginx's status for a client that did not wait: nobody sees it but log and metrics
_PIECE = 1 << 16  # bytes of an answer that are written together


class Gate:
    """ASGI middleware around the whole application."""

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
        claim = Claim(self._service.admission, abort)
        work = scope["sparsebert.work"] = Work(claim)
        answer = _Answer(self._service, claim, send, with_body=scope["method"] != "HEAD")
        if not answer.with_body:
            scope["method"] = "GET"
        try:
            self._check_key(scope, path)
            await self._app(scope, receive, answer.send)
        except ClientGone:
            answer.status = _GONE
        except RequestError as error:
            await send_error(error, path, answer.send)
        except Exception as error:
            # Only where it happened: its message might hold what the client sent.
            log.error("fault", extra={"fields": _place_of(error)})
            if answer.status == 0:
                fault = RequestError(500, "a fault of the server's own.")
                await send_error(fault, path, answer.send)
        finally:
            claim.release()
            self._tell(scope, answer.status, work)

    def _routed(self, scope: Scope) -> tuple[Scope, str]:
        """The scope as the routes expect it, and the path without what a proxy put before it.

        A proxy may cut its own path off or not; a slash at the end of a path makes no difference.
        """
        path: str = scope["path"]
        root = self._root
        if root and (path == root or path.startswith(root + "/")):
            path = path[len(root) :]
        if path[-1:] == "/" or not path:
            path = path.rstrip("/") or "/"
        return {**scope, "path": root + path, "root_path": root}, path

    def _check_key(self, scope: Scope, path: str) -> None:
        if self._key is None or is_open(scope["method"], path):
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        # The scheme's case is free (RFC 9110, 11.1).
        if scheme.lower() != b"bearer" or not hmac.compare_digest(key.strip(), self._key):
            raise RequestError(
                401,
                "this server needs a key: send it as 'Authorization: Bearer KEY'.",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _tell(self, scope: Scope, status: int, work: Work) -> None:
        seconds = perf_counter() - work.started
        route = getattr(scope.get("route"), "path", "other")
        self._service.metrics.observe_request(route, status, seconds, work)
        if log.isEnabledFor(logging.INFO):
            fields: dict[str, Any] = {
                "method": scope["method"],
                "route": route,
                "status": status,
                "ms": round(1e3 * seconds, 2),
            }
            if work.model:
                fields |= {
                    "model": work.model,
                    "texts": work.items,
                    "tokens": work.tokens,
                    "queue_ms": round(1e3 * work.queue, 2),
                    "engine_ms": round(1e3 * work.inference, 2),
                }
            log.info("request", extra={"fields": fields})


class _Answer:
    """The way of an answer to its client.

    A large one is written in pieces, each when the one before it has been read but for some
    kilobytes, so that a request has ended, and gives its place back, when its answer is written.
    """

    def __init__(self, service: Service, claim: Claim, send: Send, *, with_body: bool) -> None:
        self._service = service
        self._claim = claim
        self._send = send
        self.with_body = with_body
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._service.stopping:  # the client's next request is for another server
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await self._send(message)
            return
        body = message.get("body", b"") if self.with_body else b""
        more = message.get("more_body", False)
        self._claim.hold_answer(len(body))
        with self._claim.waits_for_client():
            for start in range(0, len(body) or 1, _PIECE):
                end = start + _PIECE
                await self._send(
                    {
                        "type": "http.response.body",
                        "body": body[start:end],
                        "more_body": more or end < len(body),
                    }
                )
        self._claim.drop(len(body))


def route_path(scope: Scope) -> str:
    """The path as the routes have it, behind the gate."""
    path: str = scope["path"]
    return path.removeprefix(scope["root_path"])


def is_open(method: str, path: str) -> bool:
    """Whether a request needs no key: health, the documentation and the page's own files."""
    if method != "GET":
        return method == "OPTIONS"
    return path in _OPEN or path == "/" or path.startswith(_OPEN_BELOW)


async def send_error(error: RequestError, path: str, send: Send) -> None:
    """Answer with an error in the form that clients of the path know."""
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


def _place_of(error: Exception) -> dict[str, Any]:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return {"kind": type(error).__name__, "at": place}
