"""How much the stages of a tokenizer.json lengthen a text, known before the library runs them.

A stage that puts two characters in place of one is ordinary. Thirty of them in a chain make a
gigabyte of a word, in a file of 6 KB. What a chain may do is bounded by the product over its
stages: for texts of any length, and for the added tokens that the library normalises while it opens
a file.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Regex, normalizers

from sparsebert.errors import CheckpointError

_MOST_TIMES = 32  # a text's length; stages of published tokenizers make it three times as long
_MOST_STAGES = 100
_LONGEST = 64  # bytes that SentencePiece's map puts in place of a character; published ones have 33
_KEYS = re.compile(r'"(?:normalizer|pre_tokenizer)"\s*:\s*')
_ESCAPED = re.compile(r"\\u00[4-7]", re.IGNORECASE)  # a letter, which nobody needs to write so


def check_stages(text: str, file: Path) -> None:
    """CheckpointError for a tokenizer.json whose stages could lengthen texts without measure.

    The vocabulary, nearly all of the file, is not parsed for it.
    """
    decoder = json.JSONDecoder()
    if _ESCAPED.search(text):  # keys may be written in escapes too
        found = json.loads(text)
        document = found if isinstance(found, dict) else {}
        stages = [document.get("normalizer"), document.get("pre_tokenizer")]
    else:  # also where a vocabulary has such words: their ids are no stages
        stages = [decoder.raw_decode(text, key.end())[0] for key in _KEYS.finditer(text)]
    for stage in stages:
        check_stage(stage, file)


def check_stage(stage: Any, file: Path) -> None:
    """`check_stages` of one normaliser or pre-tokenizer, as the file has it."""
    times = 1.0
    for count, each in enumerate(_flat(stage), 1):
        times *= _times(each, file)
        if times > _MOST_TIMES or count > _MOST_STAGES:
            raise CheckpointError(
                f"{file}: the stages of this tokenizer would make texts more than {_MOST_TIMES} "
                f"times as long, or are more than {_MOST_STAGES}: it is damaged or hostile."
            )


def _flat(stage: Any) -> Iterator[dict[str, Any]]:
    """The stages in nested sequences, in order; what is of another shape the library refuses."""
    waiting = [stage]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            for key in ("normalizers", "pretokenizers"):
                inner = each.get(key)
                waiting += reversed(inner) if isinstance(inner, list) else []


def _times(stage: dict[str, Any], file: Path) -> float:
    """The most that one stage lengthens a text, save for what it adds once."""
    kind = stage.get("type")
    if kind == "Replace":
        return _replaced(stage, file)
    if kind in ("ByteLevel", "Metaspace"):
        return 2.0  # bytes become characters of two; a space may come before each piece
    if kind == "Precompiled":
        check_character_map(stage.get("precompiled_charsmap"), file)
    return 1.0


def _replaced(stage: dict[str, Any], file: Path) -> float:
    content, pattern = stage.get("content"), stage.get("pattern")
    if not isinstance(content, str) or not isinstance(pattern, dict):
        return 1.0
    exact, expression = pattern.get("String"), pattern.get("Regex")
    if isinstance(exact, str):
        # The empty string is found between all characters.
        return max(1.0, len(content) / len(exact)) if exact else 1.0 + len(content)
    if not isinstance(expression, str):
        return 1.0
    empty = normalizers.Replace(Regex(expression), "x").normalize_str("")
    return 1.0 + len(content) if empty else max(1.0, float(len(content)))


def check_character_map(encoded: Any, file: Path) -> None:
    """CheckpointError for a damaged SentencePiece map, and one that puts long texts for characters.

    Base64 of: the size of a trie (4 bytes), the trie, and texts that end in zeros.
    """
    if not isinstance(encoded, str):
        return
    data = base64.b64decode(encoded)
    trie = int.from_bytes(data[:4], "little")
    if trie % 4 or len(data) < 4 + trie:  # the library makes room for what the map claims
        raise CheckpointError(f"{file}: its character map is damaged.")
    texts = data[4 + trie :]
    longest = max(map(len, texts.split(b"\0")))
    if longest > _LONGEST:
        raise CheckpointError(
            f"{file}: its character map puts {longest} bytes in place of a character, and no more "
            f"than {_LONGEST} are ever meant."
        )
