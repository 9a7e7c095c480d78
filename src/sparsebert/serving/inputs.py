"""The kinds of text a request may hold, each read with a sentence of its own for what is wrong."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from sparsebert.inference.texts import Text


class TextInputs(NamedTuple):
    """Texts or token ids; ``single`` says that the client gave one and not a list."""

    items: list[str | list[int]]
    single: bool


class PredictInputs(NamedTuple):
    """Texts and pairs of texts; ``single`` says that the client gave one and not a batch."""

    items: list[Text]
    single: bool


class IdInputs(NamedTuple):
    """Lists of token ids."""

    items: list[list[int]]


def kind(value: object) -> str:
    """What JSON calls a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"


def wrong(where: str, message: str) -> PydanticCustomError:
    """An error about the part ``where`` (such as ``[3]``) of the field being read."""
    return PydanticCustomError("inputs", "{where} {message}", {"where": where, "message": message})


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


def _read_texts(value: object) -> TextInputs:
    if isinstance(value, str) or _is_ids(value):
        return TextInputs([value], True)  # type: ignore[list-item]
    if not isinstance(value, list):
        raise wrong("", f"must be a string or a list of strings, not {kind(value)}.")
    for place, item in enumerate(value):
        if not (isinstance(item, str) or _is_ids(item)):
            raise wrong(f"[{place}]", f"must be a string or a list of token ids, not {kind(item)}.")
    return TextInputs(value, False)


def _read_pairs(value: object) -> PredictInputs:
    if isinstance(value, str):
        return PredictInputs([value], True)
    if not isinstance(value, list):
        raise wrong("", f"must be a string, a pair of strings or a list, not {kind(value)}.")
    if value and all(isinstance(item, str) for item in value):
        if len(value) > 2:
            raise wrong(
                "",
                f"is a list of {len(value)} strings, and a pair has two: for a batch put each text "
                "into a list of its own, [[...], [...]].",
            )
        return PredictInputs([_text(value)], True)
    for place, item in enumerate(value):
        if (
            not isinstance(item, list)
            or len(item) not in (1, 2)
            or not all(isinstance(part, str) for part in item)
        ):
            raise wrong(f"[{place}]", "must be a list of one string, or of two for a pair.")
    return PredictInputs([_text(item) for item in value], False)


def _text(parts: list[str]) -> Text:
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def _read_ids(value: object) -> IdInputs:
    if _is_ids(value):
        return IdInputs([value])  # type: ignore[list-item]
    if not isinstance(value, list):
        raise wrong("", f"must be a list of token ids, not {kind(value)}.")
    for place, item in enumerate(value):
        if not _is_ids(item):
            raise wrong(f"[{place}]", f"must be a list of token ids, not {kind(item)}.")
    return IdInputs(value)


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


_STRING = {"type": "string"}
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_ONE = {"oneOf": [_STRING, _IDS]}


def _strings(least: int, most: int) -> dict[str, Any]:
    return {"type": "array", "items": _STRING, "minItems": least, "maxItems": most}


Inputs = Annotated[
    TextInputs,
    PlainValidator(_read_texts),
    WithJsonSchema(
        {
            "oneOf": [*_ONE["oneOf"], {"type": "array", "items": _ONE}],
            "description": "A text, or a list of texts; a text may be given as its token ids.",
            "examples": ["What is deep learning?"],
        }
    ),
]
Pairs = Annotated[
    PredictInputs,
    PlainValidator(_read_pairs),
    WithJsonSchema(
        {
            "oneOf": [_STRING, _strings(2, 2), {"type": "array", "items": _strings(1, 2)}],
            "description": "A text, a pair of texts, or a batch: a list of lists of one or two.",
            "examples": ["What is deep learning?"],
        }
    ),
]
Ids = Annotated[
    IdInputs,
    PlainValidator(_read_ids),
    WithJsonSchema({"oneOf": [_IDS, {"type": "array", "items": _IDS}]}),
]
LowerCase = BeforeValidator(_lower)
