"""Embeddings made shorter and smaller: fewer numbers, and fewer bits for each."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from sparsebert.errors import InputError
from sparsebert.inference.batching import Floats
from sparsebert.inference.pooling import unit

EmbeddingType = Literal["float32", "float16", "int8", "binary"]
NUMPY_TYPES = {"float32": "<f4", "float16": "<f2", "int8": "i1", "binary": "u1"}
Embeddings = npt.NDArray[Any]
_SMALLEST = np.float32(1e-12)  # divisor


def check_embedding_type(output: object) -> None:
    """InputError for a type that embeddings cannot have."""
    known = get_args(EmbeddingType)
    if output not in known:
        raise InputError(f"output must be one of {', '.join(known)}, not {output!r}.")


def check_dimensions(model: str, width: int, dimensions: object) -> None:
    """InputError unless ``dimensions`` is None or from 1 to ``width``."""
    if dimensions is None:
        return
    if type(dimensions) is not int or not 1 <= dimensions <= width:
        raise InputError(
            f"dimensions must be from 1 to {width}, the length of {model}'s embeddings, not "
            f"{dimensions!r}."
        )


def embedding_width(width: int, dimensions: int | None, output: EmbeddingType) -> int:
    """Length of an embedding: its numbers, or the bytes of a binary one."""
    count = width if dimensions is None else dimensions
    return (count + 7) // 8 if output == "binary" else count


def shortened(embeddings: Floats, dimensions: int | None, *, normalize: bool) -> Floats:
    """The first ``dimensions`` numbers of each embedding ``[texts, width]``; None keeps all.

    With ``normalize``, shortened embeddings are normalised again.
    """
    if dimensions is None:
        return embeddings
    short = embeddings[:, :dimensions]
    return np.ascontiguousarray(unit(short) if normalize else short)


def converted(embeddings: Floats, output: EmbeddingType) -> Embeddings:
    """``[texts, width]`` in another type; "binary" gives uint8 ``[texts, ceil(width / 8)]``."""
    if output == "float16":
        return embeddings.astype(np.float16)
    if output == "int8":
        largest = np.abs(embeddings).max(axis=1, keepdims=True)
        whole: Embeddings = np.rint(embeddings * (127 / np.maximum(largest, _SMALLEST)))
        return whole.astype(np.int8)
    if output == "binary":
        return np.packbits(embeddings > 0, axis=1)
    return embeddings
