"""Rows of words as tokens, with the token that stands for each word.

A word is labelled and scored at its first token; its other tokens have no label. A word without a
token, because the text was truncated before it or the tokenizer drops its characters, is unread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparsebert.progress import Progress, silent
from sparsebert.tasks.examples import Examples
from sparsebert.tasks.tokens import TokenRows, encoded_chunks, token_types

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNLABELLED = -100  # ignore_index in torch and transformers


@dataclass(frozen=True)
class WordTokens:
    """A split's rows of words.

    ``first`` is int64 ``[words]``, for the words of all rows in order: the index in ``rows.ids`` of
    each word's first token, -1 for an unread word. ``labels`` is int64 ``[tokens]``: the label of
    the word that begins at the token, `UNLABELLED` elsewhere.
    """

    rows: TokenRows
    first: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    @property
    def unread(self) -> int:
        """The number of unread words."""
        return int(np.count_nonzero(self.first < 0))


def tokenize_words(
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    max_length: int,
    progress: Progress | None = None,
) -> WordTokens:
    """The rows' texts, truncated to ``max_length`` tokens, and where each word is in them.

    Without words (unlabelled texts), only the tokens.
    """
    report = progress or silent
    label = f"tokenising {examples.task.name} {examples.split}"
    ids: list[list[int]] = []
    type_ids: list[list[int]] = []
    first: list[npt.NDArray[np.int64]] = []
    before = 0  # tokens of all earlier rows
    chunks = encoded_chunks(
        tokenizer, examples.texts, None, max_length, return_offsets_mapping=True
    )
    for count, encoded in chunks:
        chunk = examples.words[len(ids) : len(ids) + count]
        ids += encoded["input_ids"]
        type_ids += token_types(encoded)
        for words, offsets in zip(chunk, encoded["offset_mapping"], strict=False):
            found = first_tokens(words.spans, np.array(offsets, np.int64).reshape(-1, 2))
            first.append(np.where(found < 0, -1, found + before))
            before += len(offsets)
        report(label, len(ids), len(examples))
    rows = TokenRows.of(ids, type_ids)
    places = np.concatenate([np.zeros(0, np.int64), *first])
    labels = np.full(len(rows.ids), UNLABELLED, np.int64)
    if examples.words:
        wanted = np.concatenate([words.labels for words in examples.words])
        labels[places[places >= 0]] = wanted[places >= 0]
    return WordTokens(rows, places, labels)


def first_tokens(
    spans: npt.NDArray[np.integer], offsets: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    """The first token of each word, int64 ``[words]``; -1 for a word without one.

    ``spans`` ``[words, 2]`` and ``offsets`` ``[tokens, 2]`` are characters ``[start, end)`` of one
    text; those of special tokens are empty. A token may also cover the space before its word.
    """
    first = np.full(len(spans), -1, np.int64)
    if not len(spans):
        return first
    starts, ends = offsets[:, 0], offsets[:, 1]
    # A token belongs to the first word that ends after the token's start, if the two overlap.
    word = np.searchsorted(spans[:, 1], starts, side="right")
    inside = (ends > starts) & (word < len(spans))
    inside &= spans[np.minimum(word, len(spans) - 1), 0] < ends
    tokens = np.flatnonzero(inside)
    found, places = np.unique(word[tokens], return_index=True)
    first[found] = tokens[places]
    return first
