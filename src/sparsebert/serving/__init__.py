"""Answering over HTTP: the routes of text-embeddings-inference, OpenAI and Open Inference Protocol.

    app = create_app(load_models(["packed/"]), ServingOptions())   # a FastAPI application

`sparsebert serve` runs it under uvicorn (`server.py`). A request goes through these files in order:
`connections.py` (HTTP), `gate.py` (key, log, metrics), `shortcut.py` (gzip), `work_route.py` (JSON,
checks) with `body.py` and `admission.py` (size, places, memory), a file of `routes/`,
`served_model.py` (tokens, off the event loop), `batching.py` (the engine's threads) and back.
Needs [serve].
"""

from __future__ import annotations

from sparsebert.serving.app import create_app
from sparsebert.serving.loading import load_models
from sparsebert.serving.options import ServingOptions
from sparsebert.serving.served_model import ServedModel

__all__ = ["ServedModel", "ServingOptions", "create_app", "load_models"]
