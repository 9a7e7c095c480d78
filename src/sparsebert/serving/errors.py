"""Why a request is refused, told in the form of the client that asked.

| routes | body |
|---|---|
| text-embeddings-inference's | ``{"error": sentence, "error_type": kind}`` |
| OpenAI's, ``/v1/...`` | ``{"error": {"message", "type", "param", "code"}}`` |
| Open Inference Protocol's, ``/v2...`` | ``{"error": sentence}`` |
"""

from __future__ import annotations

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
# OpenAI's own words for what its clients may branch on.
_CODES = {
    401: "invalid_api_key",
    404: "not_found",
    413: "request_too_large",
    429: "rate_limit_exceeded",
}


class RequestError(Exception):
    """A request that gets ``status`` and one sentence; ``kind`` is TEI's ``error_type``.

    ``param`` names the field at fault and ``code`` is OpenAI's word for it, where there are any.
    ``headers`` go with the answer.
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
    """The client closed its connection before there was an answer."""


def overloaded(limit: int) -> RequestError:
    """429, with a hint when to come back: OpenAI's client, for one, waits that long and retries."""
    return RequestError(
        429,
        f"the model is overloaded: {limit} requests are being answered; try again in a moment.",
        headers={"Retry-After": "1"},
    )


def error_body(error: RequestError, path: str) -> dict[str, Any]:
    """The JSON of ``error`` for a client that asked for ``path``."""
    if path == "/v2" or path.startswith("/v2/"):
        return {"error": error.message}
    if path.startswith("/v1/") or path == "/embeddings":
        kind = "server_error" if error.status in (424, 500, 503) else "invalid_request_error"
        if error.status == 429:
            kind = "requests"
        fields = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
        return {"error": fields}
    return {"error": error.message, "error_type": error.kind}
