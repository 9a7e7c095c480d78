"""The HTTP server: routes of text-embeddings-inference, OpenAI and the Open Inference Protocol.

    app = create_app(load_models(["packed/"]), ServingOptions())   # a FastAPI application

`sparsebert serve` runs it under uvicorn (`server.py`). A request passes through `connections.py`
(HTTP), `middleware.py` (key, log, metrics, gzip), `json_route.py` (body, `admission.py`, JSON,
validation), a module of `routes/`, `inference.py`, `served_model.py` (tokenisation), `batching.py`
(dynamic batching on the engine's threads) and back. Needs [serve].

Names are imported on first use: the command line declares its options from `options`, and `--help`
must work without FastAPI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsebert.extras import imported_on_use

_WHERE = {
    "ServedModel": "sparsebert.serving.served_model",
    "ServingOptions": "sparsebert.serving.options",
    "create_app": "sparsebert.serving.app",
    "load_models": "sparsebert.serving.served_model",
}

__all__ = [*_WHERE]

if TYPE_CHECKING:
    from sparsebert.serving.app import create_app as create_app
    from sparsebert.serving.options import ServingOptions as ServingOptions
    from sparsebert.serving.served_model import ServedModel as ServedModel
    from sparsebert.serving.served_model import load_models as load_models

__getattr__ = imported_on_use(__name__, _WHERE)
