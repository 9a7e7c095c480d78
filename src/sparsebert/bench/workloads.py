"""What a call of an engine computes, laid down in files that its worker reads.

A shape is a batch of one length, written as batch x tokens: ``8x128``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsebert.bench.texts import Texts, in_batches
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


@dataclass(frozen=True)
class Workload:
    """Batches of token ids: a JSON list of batches of lists of ids, in two orders."""

    shape: Shape | Texts
    as_they_come: Path
    by_length: Path
    """For engines that pad: shortest first, so that a batch has texts of like length."""

    def file(self, ragged: bool) -> Path:
        """The order for an engine that takes ragged batches, or for one that pads."""
        return self.as_they_come if ragged else self.by_length


def shape_workload(shape: Shape, vocabulary: int, folder: Path) -> Workload:
    """One batch of random ids."""
    file = _write(folder / f"{shape}.json", shape.batches(vocabulary))
    return Workload(shape, file, file)


def text_workload(
    sequences: Sequence[list[int]], batch: int, vocabulary: int, folder: Path
) -> Workload:
    """A file of texts; InputError for ids that the model does not have."""
    largest = max(map(max, sequences))
    if largest >= vocabulary:
        raise InputError(
            f"the tokenizer gives token id {largest} and the model has {vocabulary} tokens: they "
            "do not belong together."
        )
    shape = Texts(len(sequences), sum(map(len, sequences)), batch)
    return Workload(
        shape,
        _write(folder / "texts.json", in_batches(sequences, batch)),
        _write(folder / "texts-by-length.json", in_batches(sorted(sequences, key=len), batch)),
    )


def _write(file: Path, batches: list[list[list[int]]]) -> Path:
    file.write_text(json.dumps(batches), encoding="utf-8")
    return file
