"""The HTTP server: routes of text-embeddings-inference, OpenAI and the Open Inference Protocol.

    app = create_app(load_models(["packed/"]), ServingOptions())   # a FastAPI application

`sparsebert serve` runs it under uvicorn (`server.py`). A request passes through `connections.py`
(HTTP), `middleware.py` (key, log, metrics, gzip), `json_route.py` (body, `admission.py`, JSON,
validation), a module of `routes/`, `inference.py`, `served_model.py` (tokenisation), `batching.py`
(dynamic batching on the engine's threads) and back. Needs [serve].
"""

from __future__ import annotations

from sparsebert.serving.app import create_app
from sparsebert.serving.served_model import ServedModel, load_models
from sparsebert.serving.service import ServingOptions

__all__ = ["ServedModel", "ServingOptions", "create_app", "load_models"]
