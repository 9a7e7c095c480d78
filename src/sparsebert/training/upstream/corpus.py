"""Unlabelled texts to train on: each text once, tokenised once, single or joined in pairs.

For a model with a masked-LM head, the batches contain masked tokens to predict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparsebert.errors import DataError
from sparsebert.progress import Progress, silent
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.division import Division
from sparsebert.tasks.examples import selection
from sparsebert.tasks.texts import read_texts, single_texts
from sparsebert.tasks.tokens import TokenRows, encoded_chunks, token_types
from sparsebert.torch_models import padded_batch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


NOT_MASKED = -100  # in ``labels``, where a token is not to be predicted
_PAIRING_SEED = 20_240_502


@dataclass(frozen=True)
class Corpus:
    """Distinct texts in reading order, and in ``next_texts`` the text after each in its source.

    In a table with two text columns, the next text is often the other half of the row, and the two
    form a pair like those of a task. At the end of a source, it is None.
    """

    texts: list[str]
    next_texts: list[str | None]

    def __len__(self) -> int:
        return len(self.texts)


def read_corpus(
    sources: Sequence[str | Path],
    columns: DataOptions | None = None,
    division: Division | None = None,
) -> Corpus:
    """The texts of some files and folders (`sparsebert.tasks.texts`), each distinct text once.

    ``columns`` names the columns of tables; rows that ``division`` holds out are left out. Raises
    DataError if a source does not exist, cannot be read or has no texts, or if there are no
    sources.
    """
    if not sources:
        raise DataError("a corpus needs at least one file or folder.")
    following: dict[str, str | None] = {}
    for source in sources:
        texts = single_texts(read_texts(source, options=columns, division=division))
        for text, after in zip(texts, chain(texts[1:], (None,)), strict=True):
            following.setdefault(text, after)
    return Corpus(list(following), list(following.values()))


def tokenize_corpus(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    max_rows: int | None = None,
    pairs: float = 0.0,
    progress: Progress = silent,
) -> TokenRows:
    """Token sequences of the corpus: single texts first, then pairs.

    ``max_rows`` keeps a fixed selection of the texts. Of these, a fixed share ``pairs`` is joined
    with the text that follows, as ``[CLS] a [SEP] b [SEP]`` truncated to ``max_length`` tokens. All
    other texts stay single; one that is longer than ``max_length`` becomes several sequences.
    """
    chosen = selection(len(corpus), max_rows)
    numbers = np.arange(len(corpus)) if chosen is None else chosen
    joined = np.random.RandomState(_PAIRING_SEED).random_sample(len(corpus))[numbers] < pairs
    joined &= np.array([corpus.next_texts[number] is not None for number in numbers])
    single = [corpus.texts[number] for number in numbers[~joined]]
    first = [corpus.texts[number] for number in numbers[joined]]
    second = [corpus.next_texts[number] or "" for number in numbers[joined]]
    ids: list[list[int]] = []
    type_ids: list[list[int]] = []
    done = 0
    for count, encoded in chain(
        encoded_chunks(tokenizer, single, None, max_length, return_overflowing_tokens=True),
        encoded_chunks(tokenizer, first, second, max_length),
    ):
        ids += encoded["input_ids"]
        type_ids += token_types(encoded)
        done += count
        progress("tokenising the corpus", done, len(numbers))
    return TokenRows.of(ids, type_ids)


@dataclass(frozen=True)
class Masking:
    """Which tokens are masked, as in BERT (Devlin et al., 2019, section 3.1).

    A share ``masked`` of each sequence's tokens, at least one, is to be predicted: 80 % of them
    become ``mask_id``, 10 % a random token of the vocabulary, and 10 % stay. ``special`` tokens are
    never chosen.
    """

    masked: float
    mask_id: int
    special: tuple[int, ...]
    vocabulary: int

    def mask(
        self, ids: npt.NDArray[np.int32], random: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The input ids and the ids to predict (else `NOT_MASKED`), int64 ``[tokens]`` each."""
        seen = ids.astype(np.int64)
        labels = np.full_like(seen, NOT_MASKED)
        positions = np.flatnonzero(~np.isin(ids, self.special))
        if len(positions) == 0:
            return seen, labels
        count = max(1, round(self.masked * len(positions)))
        chosen = random.permutation(positions)[:count]
        labels[chosen] = seen[chosen]
        kind = random.random(count)
        seen[chosen[kind < 0.8]] = self.mask_id
        other = chosen[kind >= 0.9]
        seen[other] = random.integers(self.vocabulary, size=len(other))
        return seen, labels


class CorpusExamples:
    """Token sequences to train on; masking depends only on seed, epoch and index."""

    def __init__(self, tokens: TokenRows, masking: Masking | None, seed: int) -> None:
        self.tokens = tokens
        self._masking = masking
        self._seed = seed
        self._epoch = 0

    apart = None  # any examples may share a step

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each example, int64 ``[examples]``."""
        return self.tokens.lengths

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that determines the masking of the next batches."""
        self._epoch = epoch

    def batch(self, chosen: Sequence[int]) -> dict[str, torch.Tensor]:
        """A padded batch of the ``chosen`` examples: the Trainer's data collator."""
        import torch

        batch = padded_batch(self.tokens, np.asarray(chosen))
        batch["indices"] = torch.tensor(chosen)
        if self._masking is not None:
            batch["labels"] = torch.full_like(batch["input_ids"], NOT_MASKED)
            for position, index in enumerate(chosen):
                ids, _ = self.tokens.row(index)
                random = np.random.default_rng((self._seed, self._epoch, index))
                seen, labels = self._masking.mask(ids, random)
                batch["input_ids"][position, : len(ids)] = torch.from_numpy(seen)
                batch["labels"][position, : len(ids)] = torch.from_numpy(labels)
        return batch
