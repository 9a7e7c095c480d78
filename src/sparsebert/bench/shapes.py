"""Batches of one length, written as batch x tokens: ``8x128``."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from sparsebert.errors import InputError


@dataclass(frozen=True, order=True)
class Shape:
    """A batch of sequences of one length, of random token ids."""

    batch: int
    tokens: int

    def __str__(self) -> str:
        return f"{self.batch}x{self.tokens}"

    @property
    def texts(self) -> int:
        """Texts that one call answers."""
        return self.batch

    def batches(self, vocabulary: int) -> list[list[list[int]]]:
        """One batch; the values of ids do not matter to speed, their rows of the embedding do."""
        random = np.random.default_rng(0)
        ids: list[list[int]] = random.integers(1, vocabulary, (self.batch, self.tokens)).tolist()
        return [ids]


def parse_shapes(text: str) -> list[Shape]:
    """Read ``"1x16,8x128"``; InputError for anything else."""
    shapes = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([1-9]\d{0,5})\s*[xX]\s*([1-9]\d{0,5})\s*", part)
        if found is None:
            raise InputError(
                f"'{part.strip()}' is not a shape: write BATCHxTOKENS, separated by commas, "
                "for example 1x16,8x128."
            )
        shapes.append(Shape(int(found[1]), int(found[2])))
    return list(dict.fromkeys(shapes))
