"""Tokenisation of a task's texts, for training and evaluation.

The tokenizer is transformers' own, so that training and scores here use the same tokens that
``AutoTokenizer`` produces elsewhere from the same folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import transformer_folder
from sparsebert.checkpoint.sentence_config import read_sentence_config
from sparsebert.errors import CheckpointError, reason_of
from sparsebert.extras import need_extra
from sparsebert.progress import Progress, silent
from sparsebert.tasks.examples import Examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHUNK = 1000  # texts tokenised at a time: enough to use all threads, few enough to show progress

_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")  # any one is enough


@dataclass(frozen=True)
class TokenRows:
    """Sequences of token ids, concatenated without padding.

    ``ids`` and ``type_ids`` are int32 ``[tokens]``; row i is ``offsets[i]:offsets[i + 1]``
    (``offsets`` int64 ``[rows + 1]``).
    """

    ids: npt.NDArray[np.int32]
    type_ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, ids: Sequence[npt.ArrayLike], type_ids: Sequence[npt.ArrayLike]) -> TokenRows:
        """Concatenate sequences of ints."""
        rows = [np.asarray(row, np.int32) for row in ids]
        types = [np.asarray(row, np.int32) for row in type_ids]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        empty = np.zeros(0, np.int32)
        return cls(np.concatenate([empty, *rows]), np.concatenate([empty, *types]), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def and_rows(self, more: TokenRows) -> TokenRows:
        """These rows followed by ``more``."""
        return TokenRows(
            np.concatenate([self.ids, more.ids]),
            np.concatenate([self.type_ids, more.type_ids]),
            np.concatenate([self.offsets, self.offsets[-1] + more.offsets[1:]]),
        )

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of tokens in each row, int64 ``[rows]``."""
        return np.diff(self.offsets)

    def row(self, index: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """``ids`` and ``type_ids`` of one row, int32 ``[tokens]`` each (views)."""
        part = slice(self.offsets[index], self.offsets[index + 1])
        return self.ids[part], self.type_ids[part]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, configured as its sentence-transformers files say.

    CheckpointError if there is none, or if it is not a fast tokenizer, which alone gives offsets.
    """
    need_extra("reading a task", "transformers")
    from tokenizers import normalizers
    from transformers import AutoTokenizer

    sentence = read_sentence_config(folder)
    folder = transformer_folder(folder)
    # Without these files, transformers 5 builds an empty tokenizer to which every word is unknown.
    if not any((folder / name).is_file() for name in _FILES):
        raise CheckpointError(
            f"{folder} has no tokenizer: it needs tokenizer.json or a vocabulary ({_FILES[1]}, or "
            f"{_FILES[2]} with merges.txt)."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), use_fast=True, **sentence.tokenizer)
    except Exception as fault:  # the many tokenizer classes raise all kinds of exceptions
        raise CheckpointError(
            f"the tokenizer of {folder} cannot be read: {reason_of(fault)}."
        ) from fault
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"the tokenizer of {folder} has no fast version, which sparsebert needs."
        )
    if sentence.lower_case:
        backend = tokenizer.backend_tokenizer
        stages = [normalizers.Lowercase(), backend.normalizer]
        backend.normalizer = normalizers.Sequence([stage for stage in stages if stage])
    return tokenizer


def token_types(encoded: Any) -> list[list[int]]:
    """Token type ids of each row; zeros if the tokenizer returns none."""
    return encoded.get("token_type_ids") or [[0] * len(row) for row in encoded["input_ids"]]


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    max_length: int,
    progress: Progress | None = None,
) -> TokenRows:
    """Token ids of each text or pair, truncated to ``max_length`` tokens.

    In a pair, the longer text is cut first.
    """
    report = progress or silent
    label = f"tokenising {examples.task.name} {examples.split}"
    ids: list[list[int]] = []
    type_ids: list[list[int]] = []
    for _, encoded in encoded_chunks(tokenizer, examples.texts, examples.pairs, max_length):
        ids += encoded["input_ids"]
        type_ids += token_types(encoded)
        report(label, len(ids), len(examples))
    return TokenRows.of(ids, type_ids)


def encoded_chunks(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    max_length: int,
    **wanted: bool,
) -> Iterator[tuple[int, Any]]:
    """The texts or pairs as the tokenizer encodes them, about a thousand at a time: how many, what.

    They are truncated to ``max_length`` tokens; ``wanted`` are further arguments of the tokenizer.
    """
    for start in range(0, len(texts), _CHUNK):
        part = slice(start, start + _CHUNK)
        with _unlimited(tokenizer):
            encoded = tokenizer(
                texts[part],
                None if pairs is None else pairs[part],
                truncation=True,
                max_length=max_length,
                return_attention_mask=False,
                **wanted,
            )
        yield len(texts[part]), encoded


@contextlib.contextmanager
def _unlimited(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Disable the tokenizer's own length limit, so that only ``max_length`` applies."""
    stored, tokenizer.model_max_length = tokenizer.model_max_length, int(1e30)
    try:
        yield
    finally:
        tokenizer.model_max_length = stored
