"""The routes, one module per client protocol.

`ROUTERS` maps the tags of the documentation to routers, in the order in which they are tried:
busiest first.
"""

from __future__ import annotations

from fastapi import APIRouter

from sparsebert.serving.routes import (
    answering,
    open_inference,
    open_inference_models,
    openai,
    reranking,
    sparse_embeddings,
    status,
    tagging,
    tei,
)

ROUTERS: dict[str, tuple[APIRouter, ...]] = {
    "Embeddings": (tei.embedding_router, sparse_embeddings.router),
    "OpenAI": (openai.router, openai.models_router),
    "Classification": (
        tei.classification_router,
        reranking.router,
        reranking.documents_router,
    ),
    "Question answering": (answering.router,),
    "Token classification": (tagging.router,),
    "Tokens": (tei.token_router,),
    "Any": (tei.root_router,),
    "Status": (status.router,),
    "Open Inference Protocol": (
        open_inference.router,
        open_inference_models.index_router,
        open_inference_models.router,
    ),
}
