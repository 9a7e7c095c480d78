"""Request errors, in the form that the clients of each route expect.

| routes | body | status |
|---|---|---|
| text-embeddings-inference's | ``{"error": sentence, "error_type": kind}`` | TEI's |
| OpenAI's, ``/v1/...`` | ``{"error": {"message", "type", "param", "code"}}`` | OpenAI's |
| Cohere's and Jina's, ``/v1/rerank`` | ``{"message": sentence, "detail": sentence}`` | Cohere's |
| Open Inference Protocol's, ``/v2...`` | ``{"error": sentence}`` | TEI's |
"""

from __future__ import annotations

from enum import Enum
from typing import Any

_KINDS = {
    400: "Validation",
    401: "Unauthorized",
    404: "NotFound",
    405: "NotFound",
    408: "Validation",
    413: "Validation",
    415: "Validation",
    422: "Validation",
    424: "Backend",
    429: "Overloaded",
    500: "Backend",
    503: "Unhealthy",
}
# OpenAI's error codes, on which its clients may branch.
_CODES = {
    401: "invalid_api_key",
    404: "not_found",
    413: "request_too_large",
    429: "rate_limit_exceeded",
}
WRONG_HEAD = "model_not_supported"  # the code for a route that the model cannot answer


class RequestError(Exception):
    """An error response with ``status`` and a sentence; ``kind`` is TEI's ``error_type``.

    ``param`` names the field at fault and ``code`` is OpenAI's error code, where applicable.
    ``headers`` are added to the response. The status is TEI's; it is mapped for clients of OpenAI
    and Cohere.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str | None = None,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind or _KINDS.get(status, "Validation")
        self.param = param
        self.code = code or _CODES.get(status)
        self.headers = headers or {}


class ClientGone(Exception):
    """The client disconnected before the response."""


def overloaded(limit: int) -> RequestError:
    """429 with Retry-After, which OpenAI's client, for example, heeds before it retries."""
    return RequestError(
        429,
        f"the model is overloaded: {limit} requests are being answered; try again in a moment.",
        headers={"Retry-After": "1"},
    )


class Form(Enum):
    """The error formats."""

    TEI = "tei"
    OPENAI = "openai"
    RERANK = "rerank"
    OPEN_INFERENCE = "open inference"


def form_of(path: str) -> Form:
    """The error format of a route."""
    if path in ("/v1/rerank", "/v2/rerank"):
        return Form.RERANK
    if path.startswith("/v1/") or path == "/embeddings":
        return Form.OPENAI
    if path == "/v2" or path.startswith("/v2/"):
        return Form.OPEN_INFERENCE
    return Form.TEI


def error_answer(error: RequestError, path: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON of ``error`` in the format of ``path``."""
    form = form_of(path)
    if form is Form.OPEN_INFERENCE:
        return error.status, {"error": error.message}
    if form is Form.TEI:
        return error.status, {"error": error.message, "error_type": error.kind}
    status = _status_elsewhere(error)
    if form is Form.RERANK:
        return status, {"message": error.message, "detail": error.message}
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if status == 429:
        kind = "requests"
    fields = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return status, {"error": fields}


def _status_elsewhere(error: RequestError) -> int:
    """The status at OpenAI and Cohere: 400 for any error in the fields of a request."""
    of_a_field = error.status == 413 and error.code != _CODES[413]
    if error.status == 422 or of_a_field or error.code == WRONG_HEAD:
        return 400
    return 500 if error.status == 424 else error.status
