"""What one call of an engine computes, in files that its worker reads.

A workload is a shape, which is a batch of random ids of one length, written as batch x tokens
(``8x128``); or a file of texts of mixed length, in batches: in their own order for engines that
take ragged batches, sorted by length for those that pad. Texts are tokenised once, by the parent,
for all engines: no measured time includes tokenising.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsebert.errors import InputError
from sparsebert.inference.texts import Text, as_texts
from sparsebert.inference.tokenizing import TruncationWarning, folder_tokenizer


@dataclass(frozen=True, order=True)
class Shape:
    """A batch of sequences of one length, of random token ids."""

    batch: int
    tokens: int

    def __str__(self) -> str:
        return f"{self.batch}x{self.tokens}"

    @property
    def texts(self) -> int:
        """Texts per call."""
        return self.batch

    def batches(self, vocabulary: int) -> list[list[list[int]]]:
        """One batch; ids affect speed only by the rows of the embedding that they read."""
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
class Texts:
    """A file of texts, run in batches of ``batch``; a call is the whole file."""

    texts: int
    tokens: int
    """Of all texts together, special tokens included."""
    batch: int

    def __str__(self) -> str:
        return f"{self.texts} texts by {self.batch}"


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
            f"the tokenizer gives token id {largest}, but the model has {vocabulary} tokens: they "
            "do not belong together."
        )
    shape = Texts(len(sequences), sum(map(len, sequences)), batch)
    return Workload(
        shape,
        _write(folder / "texts.json", in_batches(sequences, batch)),
        _write(folder / "texts-by-length.json", in_batches(sorted(sequences, key=len), batch)),
    )


def tokenise(texts: Sequence[Text], folder: Path, positions: int) -> list[list[int]]:
    """Token ids of each text or pair from a model folder's tokenizer, truncated as it does.

    ``positions`` is the maximum length. InputError if the folder has no tokenizer.
    """
    encoder = folder_tokenizer(folder, positions=positions)
    if encoder is None:
        raise InputError(
            f"{folder} has no tokenizer.json and no vocabulary: pass a folder that has one "
            "with --tokenizer."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # the same for every engine
        return [tokens.ids.tolist() for tokens in encoder.encode(as_texts(list(texts)))]


def in_batches(sequences: Sequence[list[int]], size: int) -> list[list[list[int]]]:
    """``sequences`` in order, ``size`` at a time."""
    return [list(sequences[start : start + size]) for start in range(0, len(sequences), size)]


def _write(file: Path, batches: list[list[list[int]]]) -> Path:
    file.write_text(json.dumps(batches), encoding="utf-8")
    return file
