"""The OpenAPI document of a server, with its models and the limits that they set.

FastAPI derives it from the routes. What depends on the loaded models is added here: their names,
embedding sizes and vocabulary sizes, the routes that their heads support, and the form of errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from sparsebert.serving.errors import Form, form_of
from sparsebert.serving.middleware import is_public
from sparsebert.serving.schemas import ErrorResponse
from sparsebert.serving.served_model import ServedModel
from sparsebert.serving.service import Service

_JSON = "application/json"
_ERRORS = {
    400: "A body that is not JSON or does not match its content-encoding; on OpenAI's and Cohere's "
    "routes, also an invalid field",
    401: "The API key is missing or wrong",
    404: "No such model or version",
    408: "The body did not arrive in time",
    413: "Too many texts, or a text or body that is too large",
    415: "A content-encoding that is not supported",
    422: "Fields that the route or the tokenizer does not accept",
    424: "The model's head cannot answer this route, or the engine failed",
    429: "Too many requests or bytes in flight",
    500: "The engine failed",
    503: "Not ready, or stopping",
}
_KEY: dict[str, list[str]] = {"key": []}
_OF_WORK = (400, 404, 408, 413, 415, 422, 424, 429)
_OF_WORK_ELSEWHERE = (400, 404, 408, 413, 415, 429, 500)


class OpenAIErrorFields(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    error: OpenAIErrorFields


class RerankError(BaseModel):
    message: str
    detail: str


class OpenInferenceError(BaseModel):
    error: str


_BODIES: dict[Form, type[BaseModel]] = {
    Form.TEI: ErrorResponse,
    Form.OPENAI: OpenAIError,
    Form.RERANK: RerankError,
    Form.OPEN_INFERENCE: OpenInferenceError,
}


def document(app: FastAPI, service: Service) -> None:
    """Make ``app`` generate this document on first use."""
    of_the_code = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _of_the_server(of_the_code(), service)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _of_the_server(described: dict[str, Any], service: Service) -> dict[str, Any]:
    paths, schemas = described["paths"], described["components"]["schemas"]
    bodies: list[type[BaseModel]] = [*_BODIES.values(), OpenAIErrorFields]
    for body in bodies:
        schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("$defs", None)
        schemas[body.__name__] = schema
    for path in [*paths]:
        models = [model for model in service.models.values() if _serves(model, path)]
        if not models:
            del paths[path]
            continue
        for method, operation in paths[path].items():
            with_key = service.options.api_key is not None and not is_public(method.upper(), path)
            if with_key:
                operation["security"] = [_KEY]
            _set_errors(path, method, operation, with_key=with_key)
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    names = ["1"] if parameter["name"] == "version" else [*service.models]
                    parameter["schema"] = {"type": "string", "enum": names}
            # Where a path has no version, FastAPI documents it as a parameter of the query.
            operation["parameters"] = [
                each for each in operation.get("parameters", ()) if each["in"] == "path"
            ]
            if "requestBody" in operation:
                body_schema = operation["requestBody"]["content"][_JSON]["schema"]
                for fields in _fields(body_schema, schemas):
                    _set_limits(fields, models, several=len(service.models) > 1)
                    if "input" in fields and not service.options.accept_token_ids:
                        fields["input"] = _without_ids(fields["input"])
    if service.options.api_key is not None:
        scheme = {"type": "http", "scheme": "bearer"}
        described["components"]["securitySchemes"] = dict.fromkeys(_KEY, scheme)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return described


def _fields(schema: Any, schemas: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The fields of a body and of nested objects."""
    if isinstance(schema, list):
        for each in schema:
            yield from _fields(each, schemas)
    elif isinstance(schema, dict) and "$ref" in schema:
        fields = schemas[schema["$ref"].rpartition("/")[2]].get("properties", {})
        yield fields
        yield from _fields([*fields.values()], schemas)
    elif isinstance(schema, dict):
        yield from _fields(schema.get("anyOf"), schemas)


def _serves(model: ServedModel, path: str) -> bool:
    return path in model.routes or path not in _ROUTES_OF_HEADS


_ROUTES_OF_HEADS = (
    "/predict",
    "/rerank",
    "/v1/rerank",
    "/v2/rerank",
    "/answer",
    "/tag",
    "/fill",
    "/embed_sparse",
    "/embed_hybrid",
)


def _set_errors(path: str, method: str, operation: dict[str, Any], *, with_key: bool) -> None:
    form = form_of(path)
    statuses: tuple[int, ...] = (404,) if "{" in path else ()
    if path.endswith(("/health", "/ready")):
        statuses = (*statuses, 503)
    if method == "post":
        statuses = _OF_WORK_ELSEWHERE if form in (Form.OPENAI, Form.RERANK) else _OF_WORK
    if with_key:
        statuses = (*statuses, 401)
    schema = {"$ref": f"#/components/schemas/{_BODIES[form].__name__}"}
    operation["responses"] = {
        "200": operation["responses"]["200"],
        **{
            str(status): {"description": _ERRORS[status], "content": {_JSON: {"schema": schema}}}
            for status in sorted(statuses)
        },
    }


def _set_limits(fields: dict[str, Any], models: list[ServedModel], *, several: bool) -> None:
    """Add the limits that hold for all of ``models`` to the fields of a request."""
    if several and "model" in fields:
        _choose(fields["model"], [model.name for model in models])
    if "prompt_name" in fields:
        known = [set(model.prompts.texts) for model in models]
        _choose(fields["prompt_name"], ["", *sorted(set.intersection(*known))])
    if "dimensions" in fields:
        width = min(model.model.embedding_width() for model in models)
        fields["dimensions"]["anyOf"][0]["maximum"] = width
    if "truncate_prompt_tokens" in fields:
        least = max(model.model.tokenizer.least_length for model in models)
        most = min(model.model.max_length for model in models)
        fields["truncate_prompt_tokens"]["anyOf"][0:1] = [
            {"const": -1},
            {"type": "integer", "minimum": least, "maximum": most},
        ]
    if "max_tokens_per_doc" in fields:
        least = max(model.model.max_length for model in models)
        fields["max_tokens_per_doc"]["anyOf"][0]["minimum"] = least
    vocabulary = min(model.model.config.vocab_size for model in models)
    for field in (fields.get("inputs"), fields.get("input")):
        _limit_ids(field, vocabulary - 1)


def _choose(field: dict[str, Any], names: list[str]) -> None:
    field["anyOf"][0] = {"type": "string", "enum": names}


def _without_ids(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of texts and token ids without the token ids."""
    if "anyOf" in schema:
        choices = [
            _without_ids(each)
            for each in schema["anyOf"]
            if each.get("items", {}).get("type") != "integer"
        ]
        return {**schema, "anyOf": choices}
    return {**schema, "items": _without_ids(schema["items"])} if "items" in schema else schema


def _limit_ids(schema: Any, largest: int) -> None:
    """Set the largest token id in a schema of texts and token ids."""
    if isinstance(schema, list):
        for each in schema:
            _limit_ids(each, largest)
    elif isinstance(schema, dict):
        if schema.get("type") == "integer":
            schema["maximum"] = largest
        _limit_ids(schema.get("anyOf"), largest)
        _limit_ids(schema.get("items"), largest)
