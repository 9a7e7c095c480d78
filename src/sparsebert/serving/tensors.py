"""Open Inference Protocol tensors in requests: names, shapes and data, checked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sparsebert.serving.errors import RequestError

_INTEGERS = {"INT64": np.int64, "INT32": np.int32}


class RequestTensor(BaseModel):
    """An input: ``data`` is flat or nested, in row-major order."""

    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


def integers(tensor: RequestTensor) -> npt.NDArray[np.int64]:
    """An INT64 or INT32 tensor of two dimensions; RequestError 422 for anything else."""
    if tensor.datatype not in _INTEGERS:
        raise _unfit(tensor, f"has the datatype of another kind; it takes {' or '.join(_INTEGERS)}")
    if len(tensor.shape) != 2:
        raise _unfit(tensor, "must have the shape [texts, tokens]")
    flat = _flat(tensor)
    limits = np.iinfo(_INTEGERS[tensor.datatype])
    if not all(type(item) is int and limits.min <= item <= limits.max for item in flat):
        raise _unfit(tensor, f"holds something that is not an {tensor.datatype}")
    return np.array(flat, np.int64).reshape(tensor.shape)


def strings(tensor: RequestTensor) -> list[str]:
    """A BYTES tensor of texts, ``[n]`` or ``[n, 1]``; RequestError 422 for anything else."""
    if tensor.datatype != "BYTES":
        raise _unfit(tensor, "has the datatype of another kind; it takes BYTES")
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ([], [1]):
        raise _unfit(tensor, "must have the shape [texts]")
    flat = _flat(tensor)
    if not all(isinstance(item, str) for item in flat):
        raise _unfit(tensor, "holds something that is not a string")
    return flat


def _flat(tensor: RequestTensor) -> list[Any]:
    flat: list[Any] = tensor.data
    while any(isinstance(item, list) for item in flat):
        if not all(isinstance(item, list) for item in flat):
            raise _unfit(tensor, "mixes lists with values")
        flat = [item for part in flat for item in part]
    if min(tensor.shape, default=0) < 1 or len(flat) != math.prod(tensor.shape):
        raise _unfit(tensor, f"has {len(flat)} values, which are not those of its shape")
    return flat


def _unfit(tensor: RequestTensor, problem: str) -> RequestError:
    # Names are the client's own: only those that are expected get here.
    return RequestError(422, f"the input {tensor.name} {problem}.", param="inputs")
