"""Validation of a caller's texts, and how errors refer to one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from sparsebert.errors import InputError

Text = str | tuple[str, str]
"""One text, or a pair of texts that the model reads together."""


class Texts(NamedTuple):
    """Checked texts. ``single`` says that the caller passed one text and not a list of one.

    ``named`` is what messages call the text at an index; by default ``texts[index]``.
    """

    items: list[Text]
    single: bool
    named: Callable[[int], str] | None = None

    def name(self, index: int) -> str:
        """What a message calls a text."""
        if self.named is not None:
            return self.named(index)
        return "the text" if self.single else f"texts[{index}]"


def as_texts(
    texts: Text | Iterable[Text], prompt: str = "", named: Callable[[int], str] | None = None
) -> Texts:
    """Check what the caller passed: a text, a pair (tuple), or any iterable of texts and pairs.

    ``prompt`` is put before each text, and before the first of each pair. Blank texts are allowed:
    the model reads the special tokens. Raises InputError, naming the index, for anything but text.
    """
    single = isinstance(texts, str) or _is_pair(texts)
    if single:
        given: list[object] = [texts]
    elif isinstance(texts, (bytes, bytearray, Mapping)) or not isinstance(texts, Iterable):
        raise InputError(
            f"texts must be a string or a list of strings or pairs, not {_kind(texts)}."
        )
    else:
        given = list(texts)
    checked = Texts([], single, named)
    for index, item in enumerate(given):
        checked.items.append(_as_text(item, checked.name(index), prompt))
    return checked


def as_string(value: object, name: str) -> str:
    """``value`` if it is a string of valid Unicode, blank or not; InputError naming it if not."""
    if not isinstance(value, str):
        raise InputError(f"{name} must be a string, not {_kind(value)}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} is not valid Unicode: character {error.start} is half of a surrogate pair."
        ) from None
    return str(value)


def _as_text(item: object, name: str, prompt: str) -> Text:
    if isinstance(item, str):
        return as_string(prompt + item, name)
    if isinstance(item, (tuple, list)):
        if len(item) != 2:
            raise InputError(f"{name} has {len(item)} parts: a pair of texts has two.")
        first = prompt + item[0] if isinstance(item[0], str) else item[0]
        return as_string(first, f"{name}[0]"), as_string(item[1], f"{name}[1]")
    raise InputError(f"{name} must be a string or a pair of strings, not {_kind(item)}.")


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(part, str) for part in value)
    )


def _kind(value: object) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
