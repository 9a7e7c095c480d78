"""Reading the values of a config.json one by one, each checked and named if it makes no sense."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsebert.errors import CheckpointError, UnsupportedArchitectureError

MOST = 1 << 24  # of anything counted: rows, labels; real models stay far below


class ConfigValues:
    """Values of a JSON object. ``keys`` maps names to the keys that this file has for them."""

    def __init__(self, raw: dict[str, Any], where: Path, keys: Mapping[str, str]) -> None:
        self.raw = raw
        self.where = where
        self._keys = keys

    def key(self, name: str) -> str:
        """The key of a name."""
        return self._keys.get(name, name)

    def count(self, name: str, default: int | None = None, *, most: int = MOST) -> int:
        """A whole number from 1 to ``most``."""
        key = self.key(name)
        value = self.raw.get(key, default)
        if value is None:
            raise CheckpointError(f"{self.where} lacks '{key}'.")
        if type(value) is not int or not 1 <= value <= most:
            raise CheckpointError(
                f"{self.where}: {key} must be a whole number from 1 to {most}, not {value!r}."
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

    def choice(self, name: str, known: Sequence[str], default: str) -> str:
        """One of some words; UnsupportedArchitectureError for another."""
        key = self.key(name)
        value = self.raw.get(key, default)
        if value not in known:
            raise UnsupportedArchitectureError(
                f"{self.where}: {key} {value!r} is not supported; supported are {', '.join(known)}."
            )
        return str(value)

    def switch(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.raw.get(name, default)
        if not isinstance(value, bool):
            raise CheckpointError(f"{self.where}: {name} must be true or false, not {value!r}.")
        return value
