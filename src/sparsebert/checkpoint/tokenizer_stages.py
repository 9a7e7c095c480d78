"""How much the stages of a tokenizer.json can lengthen a text, before the library runs them.

A stage that replaces one character by two is ordinary. But a chain of thirty, in a file of 6 KB,
turns a word into a gigabyte. The product over the stages bounds what a chain can do: to texts of
any length, and to the added tokens that the library normalises while it opens a file.
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

_MOST_TIMES = 32  # the length of a text; published tokenizers make it up to three times as long
_MOST_STAGES = 100
_LONGEST = (
    64  # bytes that SentencePiece's map puts in place of a character; at most 33 in published ones
)
_KEYS = re.compile(r'"(?:normalizer|pre_tokenizer)"\s*:\s*')
_ESCAPED = re.compile(r"\\u00[4-7]", re.IGNORECASE)  # a letter, which need not be escaped


def check_stages(text: str, file: Path) -> None:
    """Raise CheckpointError for a tokenizer.json whose stages could lengthen texts excessively.

    The vocabulary, which is nearly all of the file, is not parsed for this.
    """
    decoder = json.JSONDecoder()
    if _ESCAPED.search(text):  # keys may be escaped, too
        found = json.loads(text)
        document = found if isinstance(found, dict) else {}
        stages = [document.get("normalizer"), document.get("pre_tokenizer")]
    else:  # matches such words in a vocabulary, too, but their ids are not stages
        stages = [decoder.raw_decode(text, key.end())[0] for key in _KEYS.finditer(text)]
    for stage in stages:
        check_stage(stage, file)


def check_stage(stage: Any, file: Path) -> None:
    """`check_stages` for one normaliser or pre-tokenizer, as stored in the file."""
    times = 1.0
    for count, each in enumerate(_flat(stage), 1):
        times *= _times(each, file)
        if times > _MOST_TIMES or count > _MOST_STAGES:
            raise CheckpointError(
                f"{file}: this tokenizer has more than {_MOST_STAGES} stages, or they could make "
                f"texts more than {_MOST_TIMES} times as long: it is damaged or hostile."
            )


def _flat(stage: Any) -> Iterator[dict[str, Any]]:
    """The stages in nested sequences, in order; the library refuses any other structure."""
    waiting = [stage]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            for key in ("normalizers", "pretokenizers"):
                inner = each.get(key)
                waiting += reversed(inner) if isinstance(inner, list) else []


def _times(stage: dict[str, Any], file: Path) -> float:
    """The factor by which one stage can lengthen a text, apart from what it adds only once."""
    kind = stage.get("type")
    if kind == "Replace":
        return _replaced(stage, file)
    if kind in ("ByteLevel", "Metaspace"):
        return 2.0  # bytes become two-byte characters; a space may precede each piece
    if kind == "Precompiled":
        check_character_map(stage.get("precompiled_charsmap"), file)
    return 1.0


def _replaced(stage: dict[str, Any], file: Path) -> float:
    content, pattern = stage.get("content"), stage.get("pattern")
    if not isinstance(content, str) or not isinstance(pattern, dict):
        return 1.0
    exact, expression = pattern.get("String"), pattern.get("Regex")
    if isinstance(exact, str):
        # The empty string matches between all characters.
        return max(1.0, len(content) / len(exact)) if exact else 1.0 + len(content)
    if not isinstance(expression, str):
        return 1.0
    empty = normalizers.Replace(Regex(expression), "x").normalize_str("")
    return 1.0 + len(content) if empty else max(1.0, float(len(content)))


def check_character_map(encoded: Any, file: Path) -> None:
    """Raise CheckpointError for a SentencePiece map that is damaged or has excessive replacements.

    The map is base64 of the size of a trie (4 bytes), the trie, and NUL-terminated texts.
    """
    if not isinstance(encoded, str):
        return
    data = base64.b64decode(encoded)
    trie = int.from_bytes(data[:4], "little")
    if trie % 4 or len(data) < 4 + trie:  # the library would allocate the size that the map claims
        raise CheckpointError(f"{file}: its character map is damaged.")
    texts = data[4 + trie :]
    longest = max(map(len, texts.split(b"\0")))
    if longest > _LONGEST:
        raise CheckpointError(
            f"{file}: its character map puts {longest} bytes in place of a character; at most "
            f"{_LONGEST} are supported."
        )
