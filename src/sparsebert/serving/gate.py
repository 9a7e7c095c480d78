"""What every request passes first and last: the key, the log line, the metrics, the error's form.

Plain ASGI, for it is on everyone's way.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import orjson
from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sparsebert.serving.errors import ClientGone, RequestError, error_answer
from sparsebert.serving.service import Service
from sparsebert.serving.work import Work
from sparsebert.serving.work_route import WorkRoute

log = logging.getLogger("sparsebert.serving")

_OPEN = {"/health", "/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json"}
_GONE = 499  # nginx's status for a client that did not wait: nobody sees it but log and metrics


class Gate:
    """ASGI middleware around the whole application.

    POST requests for one of ``routes`` go straight to it: FastAPI's own way there, through its
    middleware and routers, costs about as much time as all the rest of ours.
    """

    def __init__(self, app: ASGIApp, service: Service, routes: Mapping[str, WorkRoute]) -> None:
        self._app = app
        self._service = service
        self._routes = routes
        key = service.options.api_key
        self._expected = None if key is None else f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        work = scope["sparsebert.work"] = Work()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check_key(scope)
            route = self._routes.get(scope["path"]) if scope["method"] == "POST" else None
            if route is None:
                await self._app(scope, receive, watched)
            else:
                scope["route"], scope["path_params"] = route, {}
                response = await route.answer(Request(scope, receive))
                await response(scope, receive, watched)
        except ClientGone:
            status = _GONE
        except RequestError as error:
            await send_error(error, scope, watched)
        except Exception as error:
            # Only where it happened: its message might hold what the client sent.
            log.error("fault", extra={"fields": _place_of(error)})
            if status == 0:
                await send_error(RequestError(500, "a fault of the server's own."), scope, watched)
        finally:
            self._tell(scope, status, work)

    def _check_key(self, scope: Scope) -> None:
        if self._expected is None or is_open(scope):
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not hmac.compare_digest(given, self._expected):
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


def is_open(scope: Scope) -> bool:
    """Whether a request needs no key: health, the documentation and the page's own files."""
    path: str = scope["path"]
    if scope["method"] not in ("GET", "HEAD"):
        return bool(scope["method"] == "OPTIONS")
    return path in _OPEN or path == "/" or path.startswith("/page/")


async def send_error(error: RequestError, scope: Scope, send: Send) -> None:
    """Answer with an error in the form that clients of the path know."""
    status, content = error_answer(error, scope["path"])
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
