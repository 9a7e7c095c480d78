"""Real texts of mixed length, as batches: ragged as they come, or sorted as peers' users do.

Tokenised once, by the parent, for all engines alike: tokenising is not part of any time.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsebert.errors import InputError
from sparsebert.inference.folder_tokenizer import folder_tokenizer
from sparsebert.inference.texts import as_texts
from sparsebert.inference.tokenizing import TruncationWarning


@dataclass(frozen=True)
class Texts:
    """A file of texts, run in batches of ``batch``; a call is the whole file."""

    texts: int
    tokens: int
    """Of all texts together, special tokens included."""
    batch: int

    def __str__(self) -> str:
        return f"{self.texts} texts by {self.batch}"


def tokenise(texts: Sequence[str], folder: Path, positions: int) -> list[list[int]]:
    """Token ids of each text as a model folder's tokenizer gives and cuts them.

    ``positions`` is the most there can be. InputError if the folder has no tokenizer.
    """
    encoder = folder_tokenizer(folder, positions=positions)
    if encoder is None:
        raise InputError(
            f"{folder} has no tokenizer.json and no vocabulary: name a folder that has one "
            "with --tokenizer."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # cut for every engine alike
        return [tokens.ids.tolist() for tokens in encoder.encode(as_texts(list(texts)))]


def in_batches(sequences: Sequence[list[int]], size: int) -> list[list[list[int]]]:
    """``sequences`` in order, ``size`` at a time."""
    return [list(sequences[start : start + size]) for start in range(0, len(sequences), size)]
