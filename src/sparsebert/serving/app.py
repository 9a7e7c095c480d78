"""The FastAPI application: routes, documentation, web page and middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

import sparsebert
from sparsebert.serving.errors import RequestError, error_answer
from sparsebert.serving.json_route import JsonRoute, to_json
from sparsebert.serving.middleware import Compression, FastPath, RequestMiddleware, route_path
from sparsebert.serving.openapi import document
from sparsebert.serving.options import ServingOptions
from sparsebert.serving.page import add_page
from sparsebert.serving.routes import ROUTERS
from sparsebert.serving.served_model import ServedModel
from sparsebert.serving.service import Service


def create_app(models: Sequence[ServedModel], options: ServingOptions | None = None) -> FastAPI:
    """Create a FastAPI application that serves ``models``, the first of which is the default.

    Engine threads start and stop with the application's lifespan; on shutdown, pending requests are
    finished. Raises InputError for options that do not fit the models.
    """
    service = Service(models, options or ServingOptions())

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    app = FastAPIOffline(  # /docs with its scripts included, for use without the internet
        title="sparsebert",
        summary="BERT encoders, halved: embeddings, classification and answers on CPUs.",
        version=sparsebert.__version__,
        lifespan=lifespan,
        redoc_url=None,
        favicon_url="page/icon.svg",
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(RequestError, _refuse)
    for tag, routers in ROUTERS.items():
        for router in routers:
            app.include_router(router, tags=[tag])
    document(app, service)
    add_page(app)
    # The last one added is the outermost.
    app.add_middleware(FastPath, routes=_direct())
    app.add_middleware(Compression)
    app.add_middleware(RequestMiddleware, service=service)
    if service.options.cors_allow_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.options.cors_allow_origin,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    return app


def _direct() -> dict[str, JsonRoute]:
    """The JSON routes by path, except those whose path has parameters."""
    routers = (router for group in ROUTERS.values() for router in group)
    routes = (route for router in routers for route in router.routes)
    return {
        route.path: route
        for route in routes
        if isinstance(route, JsonRoute) and not route.param_convertors
    }


async def _refuse(request: Request, error: Exception) -> Response:
    """The error response in the form that the route's clients expect."""
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        error = RequestError(error.status_code, f"{error.detail}.".lower(), headers=headers)
    assert isinstance(error, RequestError)
    status, content = error_answer(error, route_path(request.scope))
    return Response(await to_json(content), status, error.headers, "application/json")
