"""The vocabulary in SentencePiece's own file format, such as DeBERTa's ``spm.model``.

The file is a protocol buffer (sentencepiece_model.proto of google/sentencepiece), of which a
tokenizer needs the pieces and the id of the unknown piece. The format is simple: each field is a
key, which combines its number and how it is stored, and a value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparsebert.errors import CheckpointError

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_PIECES, _TRAINER = 1, 2  # fields of the model
_TEXT, _SCORE, _KIND = 1, 2, 3  # fields of a piece
_MODEL_TYPE, _UNKNOWN_ID = 3, 40  # fields of the training settings
_UNIGRAM = 1

CONTROL, USER_DEFINED = 3, 4  # kinds of pieces


@dataclass(frozen=True)
class SentencePieces:
    """``pieces`` are texts and scores, ``kinds`` what each is; ``unknown`` is a piece's index."""

    pieces: tuple[tuple[str, float], ...]
    kinds: tuple[int, ...]
    unknown: int


def read_sentencepieces(file: Path) -> SentencePieces:
    """Read a SentencePiece unigram model. Raises CheckpointError for any other file."""
    try:
        return _model(file.read_bytes())
    except (IndexError, TypeError, UnicodeDecodeError, ValueError, struct.error) as error:
        raise CheckpointError(f"{file} is not a SentencePiece unigram model: {error}.") from None


def _model(data: bytes) -> SentencePieces:
    pieces, kinds, unknown = [], [], 0
    for number, value in _fields(data):
        if number == _PIECES:
            fields = dict(_fields(_bytes(value)))
            (score,) = struct.unpack("<f", _bytes(fields.get(_SCORE, bytes(4))))
            pieces.append((_bytes(fields[_TEXT]).decode() if _TEXT in fields else "", score))
            kinds.append(_number(fields.get(_KIND, 1)))
        elif number == _TRAINER:
            fields = dict(_fields(_bytes(value)))
            unknown = _number(fields.get(_UNKNOWN_ID, 0))
            if fields.get(_MODEL_TYPE, _UNIGRAM) != _UNIGRAM:
                raise ValueError("it is a model of another type")
    if not unknown < len(pieces):
        raise ValueError("it has no unknown piece")
    return SentencePieces(tuple(pieces), tuple(kinds), unknown)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field; the value is an int for varints, else bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == _LENGTH:
            size, at = _varint(data, at)
        elif kind in (_FOUR_BYTES, _EIGHT_BYTES):
            size = 4 if kind == _FOUR_BYTES else 8
        else:
            raise ValueError("it is damaged")
        if at + size > len(data):
            raise ValueError("it is truncated")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number stored with seven bits per byte, lowest first, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("it is damaged")


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("it is damaged")
    return value


def _number(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("it is damaged")
    return value
