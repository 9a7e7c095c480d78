"""The FastAPI application: models and options in, every route out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

import sparsebert
from sparsebert.serving.errors import RequestError, error_answer
from sparsebert.serving.gate import Gate, route_path
from sparsebert.serving.openapi import document
from sparsebert.serving.options import ServingOptions
from sparsebert.serving.page import add_page
from sparsebert.serving.routes import (
    answering,
    classification,
    embedding,
    open_inference,
    open_inference_models,
    openai,
    reranking,
    root,
    status,
    tokens,
)
from sparsebert.serving.served_model import ServedModel
from sparsebert.serving.service import Service
from sparsebert.serving.shortcut import Compression, Shortcut
from sparsebert.serving.work_route import WorkRoute, to_json

# In the order in which they are tried: the busiest first.
_ROUTERS = {
    "Embeddings": (embedding.router,),
    "OpenAI": (openai.router, openai.models_router),
    "Classification": (classification.router, reranking.router, reranking.documents_router),
    "Question answering": (answering.router,),
    "Tokens": (tokens.router,),
    "Any": (root.router,),
    "Status": (status.router,),
    "Open Inference Protocol": (
        open_inference.router,
        open_inference_models.index_router,
        open_inference_models.router,
    ),
}


def create_app(models: Sequence[ServedModel], options: ServingOptions | None = None) -> FastAPI:
    """A server of ``models``, the first being the default.

    Engine threads start with the application (its lifespan) and end with it, when all that was
    asked is answered. Raises InputError for limits that the models do not fit.
    """
    service = Service(models, options or ServingOptions())

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    app = FastAPIOffline(  # /docs with its scripts here, for those without the internet
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
    for tag, routers in _ROUTERS.items():
        for router in routers:
            app.include_router(router, tags=[tag])
    document(app, service)
    add_page(app)
    # The last is the outermost.
    app.add_middleware(Shortcut, routes=_direct())
    app.add_middleware(Compression)
    app.add_middleware(Gate, service=service)
    if service.options.cors_allow_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.options.cors_allow_origin,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    return app


def _direct() -> dict[str, WorkRoute]:
    """The routes that do work, by path, without those whose path has parameters."""
    routers = (router for group in _ROUTERS.values() for router in group)
    routes = (route for router in routers for route in router.routes)
    return {
        route.path: route
        for route in routes
        if isinstance(route, WorkRoute) and not route.param_convertors
    }


async def _refuse(request: Request, error: Exception) -> Response:
    """An error as the clients of its route know errors."""
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        error = RequestError(error.status_code, f"{error.detail}.".lower(), headers=headers)
    assert isinstance(error, RequestError)
    status, content = error_answer(error, route_path(request.scope))
    return Response(await to_json(content), status, error.headers, "application/json")
