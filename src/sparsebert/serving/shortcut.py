"""The quick way to the busy routes, and compression for who asks for it. Plain ASGI."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request
from starlette.middleware.gzip import GZipResponder
from starlette.types import ASGIApp, Receive, Scope, Send

from sparsebert.serving.gate import route_path
from sparsebert.serving.work_route import WorkRoute

_LEAST = 4096  # bytes: a smaller answer takes longer to compress than to send


class Shortcut:
    """POST requests for one of ``routes`` go straight to it.

    FastAPI's own way there, through its middleware and routers, costs about as much time as all the
    rest of ours.
    """

    def __init__(self, app: ASGIApp, routes: Mapping[str, WorkRoute]) -> None:
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
    """gzip for clients that accept it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and accepts_gzip(scope):
            app = GZipResponder(app, _LEAST, compresslevel=1)
        await app(scope, receive, send)


def accepts_gzip(scope: Scope) -> bool:
    """Whether a request accepts gzip (RFC 9110, 12.5.3): named, and not by `q=0`."""
    for name, value in scope["headers"]:
        if name == b"accept-encoding":
            for each in value.lower().split(b","):
                coding, _, weight = each.partition(b";")
                if coding.strip() == b"gzip":
                    return bool(weight.replace(b" ", b"").rstrip(b".0") != b"q=")
    return False
