"""Read, check, compare and write the small JSON files of a model folder.

The files that are read may come from untrusted sources.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from sparsebert.checkpoint.atomic import replaced_file
from sparsebert.checkpoint.folder_files import has_file
from sparsebert.errors import CheckpointError, UnsupportedArchitectureError

MOST = 1 << 24  # limit of any count (rows, labels); real models stay far below it
_LARGEST = 64 << 20  # bytes; the indexes of the largest public checkpoints are far smaller
_DEEPEST = 100  # levels of nesting; model files and data rows have a handful
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
_NOT_UTF8 = re.compile(r"[\ud800-\udfff]")


def parse_json(text: str) -> Any:
    """Parse a JSON text. Raises ValueError, with the reason, if it is invalid.

    Also refuses what Python's parser accepts but could not write again: values nested so deeply
    that the next function to walk them would overflow the stack, and half of a surrogate pair
    ("\\ud800"), which UTF-8 cannot encode.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if text.count("[") + text.count("{") > _DEEPEST and _depth(value) > _DEEPEST:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
    if _HALF_PAIR.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError(
                "it is not valid Unicode: it contains half of a surrogate pair"
            ) from None
    return value


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [
            inner for each in level for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return depth


def read_json(path: Path) -> Any:
    """Parse a JSON file. CheckpointError names the file if it is missing, huge or not JSON."""
    if not has_file(path):
        raise CheckpointError(f"{path} cannot be read: there is no such file.")
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise CheckpointError(
                f"{path} is {size >> 20} MiB, too large for a JSON file in a model folder."
            )
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, absurdly long numbers
        raise CheckpointError(f"{path} is not valid JSON: {error}.") from error


def read_object(path: Path) -> dict[str, Any]:
    """`read_json` of a file that must hold an object."""
    document = read_json(path)
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not {type(document).__name__}.")
    return document


def write_json(path: Path, document: Any) -> None:
    """Write JSON the way transformers does: indented by two, keys sorted, a newline at the end.

    What UTF-8 cannot encode, such as a byte of a file's name, is written as `errors.printable`
    spells it, so that `read_json` takes it.
    """
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    text = _NOT_UTF8.sub(lambda found: f"\\\\u{ord(found[0]):x}", text)
    path.write_text(text, encoding="utf-8")


def replace_json(path: Path, document: Any) -> None:
    """`write_json`, atomically: readers of ``path`` find either the old file or the new one."""
    with replaced_file(path) as unfinished:
        write_json(unfinished, document)


def inner_folder(root: Path, named: object, where: Path) -> Path:
    """The folder inside ``root`` that a document names; CheckpointError if it points elsewhere.

    ``named`` comes from the file ``where``: absolute paths, ``..``, backslashes, drive letters and
    links that lead out of the folder are refused.
    """
    if not isinstance(named, str):
        raise CheckpointError(f"{where}: 'path' must be a string.")
    parts = PurePosixPath(named).parts
    plain = not any(mark in named for mark in ("\\", ":", "\0"))
    if not plain or named.startswith("/") or ".." in parts:
        raise CheckpointError(f"{where} names the path '{named}', which leads outside the folder.")
    folder = root.joinpath(*parts)
    if not folder.resolve().is_relative_to(root.resolve()):
        raise CheckpointError(
            f"{where} names the path '{named}', a link that leads outside the folder."
        )
    return folder


def plain_file(root: Path, named: object, where: Path) -> Path:
    """The file directly inside ``root`` that a document names; else CheckpointError."""
    text = named if isinstance(named, str) else ""
    if not text or text.startswith(".") or any(mark in text for mark in ("/", "\\", ":", "\0")):
        raise CheckpointError(
            f"{where} names {named!r}: only plain file names inside the folder are allowed."
        )
    return root / text


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], *, ignored: Collection[str] = ()
) -> list[str]:
    """``epochs was 3 and is now 4`` for each key whose values differ."""
    return [
        f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
        for name in {**before, **now}
        if name not in ignored and before.get(name) != now.get(name)
    ]


class ConfigValues:
    """Validated values of a JSON object. ``keys`` maps names to the keys that this file uses."""

    def __init__(self, raw: dict[str, Any], where: Path, keys: Mapping[str, str]) -> None:
        self.raw = raw
        self.where = where
        self._keys = keys

    def key(self, name: str) -> str:
        """The key that the file uses for a name."""
        return self._keys.get(name, name)

    def count(self, name: str, default: int | None = None, *, most: int = MOST) -> int:
        """An integer from 1 to ``most``."""
        key = self.key(name)
        value = self.raw.get(key, default)
        if value is None:
            raise CheckpointError(f"{self.where} lacks '{key}'.")
        if type(value) is not int or not 1 <= value <= most:
            raise CheckpointError(
                f"{self.where}: {key} must be an integer from 1 to {most}, not {value!r}."
            )
        return value

    def epsilon(self, name: str, default: float) -> float:
        """A number between 0 and 1."""
        key = self.key(name)
        value = self.raw.get(key, default)
        if type(value) not in (int, float) or not math.isfinite(value) or not 0 < value < 1:
            raise CheckpointError(
                f"{self.where}: {key} must be a number between 0 and 1, not {value!r}."
            )
        return float(value)

    def choice(self, name: str, known: Collection[str], default: str) -> str:
        """One of the ``known`` names; UnsupportedArchitectureError for any other."""
        key = self.key(name)
        value = self.raw.get(key, default)
        if not isinstance(value, str) or value not in known:
            raise UnsupportedArchitectureError(
                f"{self.where}: {key} {value!r} is not supported; use one of {', '.join(known)}."
            )
        return value

    def switch(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.raw.get(name, default)
        if not isinstance(value, bool):
            raise CheckpointError(f"{self.where}: {name} must be true or false, not {value!r}.")
        return value
