"""Tensors of the Open Inference Protocol, as JSON or as Triton's binary data, validated.

With the header ``Inference-Header-Content-Length: N``, the first N bytes of a body are JSON. Then
follow the values of all tensors that have the parameter ``binary_data_size`` instead of ``data``:
little-endian numbers, and BYTES elements each prefixed by its length in four bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from fastapi import Request, Response
from pydantic import ConfigDict, Field, PrivateAttr

from sparsebert.serving.errors import RequestError
from sparsebert.serving.inputs import Whole
from sparsebert.serving.json_route import Body, JsonRoute, json_object, to_json, validated
from sparsebert.serving.schemas import Fields

HEADER = "Inference-Header-Content-Length"
_INTEGERS: dict[str, np.dtype[np.signedinteger[Any]]] = {
    "INT64": np.dtype("<i8"),
    "INT32": np.dtype("<i4"),
}


class TensorParameters(Fields):
    """Only the size of binary data has an effect here."""

    binary_data_size: Annotated[int, Field(ge=0), Whole] | None = None
    shared_memory_region: None = Field(None, description="Shared memory is not supported.")


def _require_data(schema: dict[str, Any]) -> None:
    # The documentation describes tensors as JSON.
    schema["properties"]["data"] = {"title": "Data", "type": "array", "items": {}}
    schema["required"] = [*schema["required"], "data"]
    schema["properties"].pop("parameters")


class RequestTensor(Fields):
    """An input: ``data``, flat or nested in row-major order, or else binary data."""

    model_config = ConfigDict(json_schema_extra=_require_data)

    name: str
    shape: list[Annotated[int, Whole]]
    datatype: str
    data: list[Any] | None = None
    parameters: TensorParameters = TensorParameters.model_validate({})
    _binary: bytes = PrivateAttr(b"")


class Tensors(NamedTuple):
    """A response: its JSON and the binary data of its outputs."""

    content: dict[str, Any]
    binary: Sequence[bytes]


class TensorRoute(JsonRoute):
    """A `JsonRoute` whose body has ``inputs``, and whose endpoint returns `Tensors`."""

    def read(self, request: Request, raw: bytes, body_type: type[Body]) -> Body:
        """The JSON of a body, with the binary data assigned to its inputs."""
        given = request.headers.get(HEADER, str(len(raw)))
        length = int(given) if given.isascii() and given.isdigit() and len(given) <= 20 else -1
        if not 0 <= length <= len(raw):
            raise RequestError(400, f"{HEADER} is not the number of bytes of JSON in the body.")
        raw, binary = raw[:length], raw[length:]
        body = validated(json_object(raw), body_type)
        start = 0
        for tensor in getattr(body, "inputs", ()):
            size = tensor.parameters.binary_data_size
            if size is None:
                continue
            if tensor.data is not None:
                raise RequestError(
                    422, "an input has both data and binary data: send one of them.", param="inputs"
                )
            tensor._binary = binary[start : start + size]
            start += size
        if start != len(binary):
            raise RequestError(
                400,
                f"the body has {len(binary)} bytes of binary data, but its inputs have {start}.",
            )
        return body

    async def write(self, result: Any, headers: dict[str, str]) -> Response:
        """`Tensors` as JSON followed by the binary data."""
        assert isinstance(result, Tensors)
        content = await to_json(result.content)
        if not result.binary:
            return Response(content, 200, headers, "application/json")
        headers = {**headers, HEADER: str(len(content))}
        return Response(
            b"".join((content, *result.binary)), 200, headers, "application/octet-stream"
        )


def integers(tensor: RequestTensor) -> npt.NDArray[np.int64]:
    """An INT64 or INT32 tensor of two dimensions; RequestError 422 for anything else."""
    if tensor.datatype not in _INTEGERS:
        raise _unfit(tensor, f"must have the datatype {' or '.join(_INTEGERS)}")
    if len(tensor.shape) != 2:
        raise _unfit(tensor, "must have the shape [texts, tokens]")
    kind = _INTEGERS[tensor.datatype]
    if tensor.data is None:
        size = tensor.parameters.binary_data_size
        if size is None or size % kind.itemsize:
            raise _unfit(
                tensor, f"has neither data nor binary data of whole {tensor.datatype} values"
            )
        values = np.frombuffer(tensor._binary, kind)
        _check_shape(tensor, len(values))
        return values.astype(np.int64).reshape(tensor.shape)
    flat = _flat(tensor, tensor.data)
    limits = np.iinfo(kind)
    if not all(type(item) is int and limits.min <= item <= limits.max for item in flat):
        raise _unfit(tensor, f"holds a value that is not an {tensor.datatype}")
    return np.array(flat, np.int64).reshape(tensor.shape)


def strings(tensor: RequestTensor, *, paired: bool = False) -> list[str]:
    """A BYTES tensor of texts, ``[n]`` or ``[n, 1]``; RequestError 422 for anything else.

    Texts may be empty if they are ``paired`` with others.
    """
    if tensor.datatype != "BYTES":
        raise _unfit(tensor, "must have the datatype BYTES")
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ([], [1]):
        raise _unfit(tensor, "must have the shape [texts]")
    if tensor.data is None:
        flat: list[Any] = list(_split(tensor))
        _check_shape(tensor, len(flat))
    else:
        flat = _flat(tensor, tensor.data)
    for index, item in enumerate(flat):
        if not isinstance(item, str):
            raise _unfit(tensor, "holds a value that is not a string")
        if not (item or paired):
            raise _unfit(tensor, f"is empty at {index}: send at least one character")
    return flat


def _split(tensor: RequestTensor) -> Iterator[str]:
    """The strings of binary data, each prefixed by its length in four bytes."""
    binary = tensor._binary
    if tensor.parameters.binary_data_size is None:
        raise _unfit(tensor, "has neither data nor binary data")
    end = 0
    while end < len(binary):
        start = end + 4
        end = start + int.from_bytes(binary[end:start], "little")
        if max(start, end) > len(binary):
            raise _unfit(tensor, "has binary data that ends in the middle of a string")
        try:
            yield binary[start:end].decode()
        except UnicodeDecodeError:
            raise _unfit(tensor, "holds a string that is not UTF-8") from None


def _flat(tensor: RequestTensor, data: list[Any]) -> list[Any]:
    flat = data
    while any(isinstance(item, list) for item in flat):
        if not all(isinstance(item, list) for item in flat):
            raise _unfit(tensor, "mixes lists and values")
        flat = [item for part in flat for item in part]
    _check_shape(tensor, len(flat))
    return flat


def _check_shape(tensor: RequestTensor, count: int) -> None:
    if min(tensor.shape, default=0) < 1 or count != math.prod(tensor.shape):
        raise _unfit(
            tensor, f"has {count} values, which do not match its shape (no size may be below 1)"
        )


def _unfit(tensor: RequestTensor, problem: str) -> RequestError:
    # Names come from the client, but only tensors with the expected names get here.
    return RequestError(422, f"the input {tensor.name} {problem}.", param="inputs")
