"""Input types of requests (texts, pairs, token ids, documents), each with its error messages."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from sparsebert.inference.texts import Text


class TextInputs(NamedTuple):
    """Texts or token ids; ``single`` means that the client sent one, not a list."""

    items: list[str | list[int]]
    single: bool


class PredictInputs(NamedTuple):
    """Texts and pairs of texts; ``single`` means that the client sent one, not a batch."""

    items: list[Text]
    single: bool


class IdInputs(NamedTuple):
    """Lists of token ids."""

    items: list[list[int]]


def kind(value: object) -> str:
    """The JSON type of a value."""
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
    """A validation error at ``where`` (such as ``[3]``) in the field."""
    return PydanticCustomError("inputs", "{where} {message}", {"where": where, "message": message})


def _filled(text: str, where: str = "") -> str:
    """Refuse the empty text, but not a blank one, as TEI and OpenAI do."""
    if not text:
        raise wrong(where, "is empty: send at least one character.")
    return text


def _whole(value: object) -> object:
    """JSON has only one kind of number, so 5.0 counts as an integer."""
    return int(value) if type(value) is float and value.is_integer() else value


def _as_ids(value: object) -> list[int] | None:
    """The value as a list of token ids; None if it is something else."""
    if not isinstance(value, list) or not value:
        return None
    ids = [_whole(item) for item in value]
    return ids if all(type(item) is int for item in ids) else None  # type: ignore[return-value]


def _read_texts(value: object) -> TextInputs:
    if isinstance(value, str):
        return TextInputs([_filled(value)], True)
    ids = _as_ids(value)
    if ids is not None:
        return TextInputs([ids], True)
    if not isinstance(value, list):
        raise wrong("", f"must be a string or a list of strings, not {kind(value)}.")
    items: list[str | list[int]] = []
    for index, item in enumerate(value):
        read = _filled(item, f"[{index}]") if isinstance(item, str) else _as_ids(item)
        if read is None:
            raise wrong(f"[{index}]", f"must be a string or a list of token ids, not {kind(item)}.")
        items.append(read)
    return TextInputs(items, False)


def _read_pairs(value: object) -> PredictInputs:
    if isinstance(value, str):
        return PredictInputs([_filled(value)], True)
    if not isinstance(value, list):
        raise wrong("", f"must be a string, a pair of strings or a list, not {kind(value)}.")
    if value and all(isinstance(item, str) for item in value):
        if len(value) > 2:
            raise wrong(
                "",
                f"is a list of {len(value)} strings, but a pair has two: for a batch, put each "
                "text into its own list, [[...], [...]].",
            )
        return PredictInputs([_text(value, "")], True)
    for index, item in enumerate(value):
        if (
            not isinstance(item, list)
            or len(item) not in (1, 2)
            or not all(isinstance(part, str) for part in item)
        ):
            raise wrong(f"[{index}]", "must be a list of one string, or of two strings for a pair.")
    return PredictInputs([_text(item, f"[{index}]") for index, item in enumerate(value)], False)


def _text(parts: list[str], where: str) -> Text:
    """A text of a pair may be empty, as in TEI."""
    return _filled(parts[0], f"{where}[0]") if len(parts) == 1 else (parts[0], parts[1])


def _read_ids(value: object) -> IdInputs:
    ids = _as_ids(value)
    if ids is not None:
        return IdInputs([ids])
    if not isinstance(value, list):
        raise wrong("", f"must be a list of token ids, not {kind(value)}.")
    lists = []
    for index, item in enumerate(value):
        ids = _as_ids(item)
        if ids is None:
            raise wrong(f"[{index}]", f"must be a list of token ids, not {kind(item)}.")
        lists.append(ids)
    return IdInputs(lists)


def _read_strings(value: object) -> TextInputs:
    found = _read_texts(value)
    for index, item in enumerate(found.items):
        if not isinstance(item, str):
            raise wrong("" if found.single else f"[{index}]", "must be a string, not token ids.")
    return found


def _read_documents(value: object) -> list[str]:
    if not isinstance(value, list):
        raise wrong("", f"must be a list of strings or of objects with a text, not {kind(value)}.")
    texts = []
    for index, item in enumerate(value):
        where = f"[{index}]"
        if isinstance(item, dict):
            if not isinstance(item.get("text"), str):
                raise wrong(where, 'must have a "text" that is a string.')
            item, where = item["text"], f"{where}.text"
        if not isinstance(item, str):
            raise wrong(where, f"must be a string or an object with a text, not {kind(item)}.")
        texts.append(_filled(item, where))
    return texts


def _never(value: bool) -> bool:
    if value:
        raise wrong("", "is not supported: it must be false.")
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


_STRING = {"type": "string", "minLength": 1}
_ANY_STRING = {"type": "string"}
_ID = {
    "type": "integer",
    "minimum": 0,
    "maximum": (1 << 32) - 1,
}  # the limit of the tokenizers library
_IDS = {"type": "array", "items": _ID, "minItems": 1}


def _listed(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


_SEQUENCES = [  # a text, and a pair
    {**_listed(_STRING), "maxItems": 1},
    {**_listed(_ANY_STRING), "minItems": 2, "maxItems": 2},
]


Inputs = Annotated[
    TextInputs,
    PlainValidator(_read_texts),
    WithJsonSchema(
        {
            "anyOf": [_STRING, _IDS, _listed({"anyOf": [_STRING, _IDS]})],
            "description": "A text, or a list of texts; a text may be given as its token ids.",
            "examples": ["What is deep learning?"],
        }
    ),
]
Strings = Annotated[
    TextInputs,
    PlainValidator(_read_strings),
    WithJsonSchema(
        {
            "anyOf": [_STRING, _listed(_STRING)],
            "description": "A text, or a list of texts.",
            "examples": ["What is deep learning?"],
        }
    ),
]
Pairs = Annotated[
    PredictInputs,
    PlainValidator(_read_pairs),
    WithJsonSchema(
        {
            "anyOf": [_STRING, *_SEQUENCES, _listed({"anyOf": _SEQUENCES})],
            "description": "A text, a pair of texts, or a batch: a list of lists of one or two.",
            "examples": ["What is deep learning?"],
        }
    ),
]
Ids = Annotated[
    IdInputs,
    PlainValidator(_read_ids),
    WithJsonSchema({"anyOf": [_IDS, _listed(_IDS)]}),
]
Documents = Annotated[
    list[str],
    PlainValidator(_read_documents),
    WithJsonSchema(
        _listed(
            {
                "anyOf": [
                    _STRING,
                    {
                        "type": "object",
                        "properties": {"text": _STRING},
                        "required": ["text"],
                    },
                ]
            }
        )
    ),
]
Filled = Annotated[str, AfterValidator(_filled), WithJsonSchema(_STRING)]
"""A string of at least one character."""
FilledList = Annotated[list[Filled], WithJsonSchema(_listed(_STRING))]
Texts = Annotated[list[str], WithJsonSchema(_listed(_ANY_STRING))]
"""Texts to be read with a query: some may be empty."""
LowerCase = BeforeValidator(_lower)
Whole = BeforeValidator(_whole)
_FALSE = {"type": "boolean", "enum": [False]}
Never = Annotated[bool, AfterValidator(_never), WithJsonSchema(_FALSE)]
"""A switch that is accepted only if it is off."""
