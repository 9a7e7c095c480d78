"""Tokenising texts for an embedding model with its folder's tokenizer, length and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import EncoderConfig, read_pooling, read_prompts
from sparsebert.checkpoint.pooling import Pooling
from sparsebert.checkpoint.tokenizer import check_ids
from sparsebert.errors import CheckpointError
from sparsebert.inference.texts import as_texts
from sparsebert.inference.tokenizing import folder_tokenizer
from sparsebert.tasks.tokens import TokenRows


@dataclass(frozen=True)
class ReadTexts:
    """Token ids of texts, each preceded by its prompt.

    ``prompt_tokens`` is int64 ``[texts]``: how many tokens at the start of each text are not part
    of the text itself; 0 without a prompt.
    """

    rows: TokenRows
    prompt_tokens: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def and_texts(self, more: ReadTexts) -> ReadTexts:
        """These texts followed by ``more``."""
        return ReadTexts.joined([self, more])

    @classmethod
    def joined(cls, parts: Sequence[ReadTexts]) -> ReadTexts:
        """The texts of all parts, in order."""
        rows = [part.rows for part in parts]
        lengths = np.concatenate([each.lengths for each in rows])
        return cls(
            TokenRows(
                np.concatenate([each.ids for each in rows]),
                np.concatenate([each.type_ids for each in rows]),
                np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            ),
            np.concatenate([part.prompt_tokens for part in parts]),
        )

    def take(self, order: npt.NDArray[np.int64]) -> ReadTexts:
        """Some of the texts, in the order of ``order``."""
        found = [self.rows.row(index) for index in order]
        ids, type_ids = ([each[place] for each in found] for place in (0, 1))
        return ReadTexts(TokenRows.of(ids, type_ids), self.prompt_tokens[order])


class TextReader:
    """Tokenises texts as `sparsebert.load` would, for a model that runs on torch.

    ``prompts`` and ``pooling`` are those of the folder; without modules, pooling is the mean. Texts
    longer than ``max_length`` tokens (by default the folder's own limit) are truncated. Raises
    CheckpointError for a folder without a tokenizer, or whose texts cannot be embedded.
    """

    def __init__(
        self, folder: Path, config: EncoderConfig, *, max_length: int | None = None
    ) -> None:
        self._folder, self._config = folder, config
        tokenizer = folder_tokenizer(folder, positions=config.max_length, max_length=max_length)
        if tokenizer is None:
            raise CheckpointError(
                f"{folder} has no tokenizer.json and no vocabulary, so it cannot read texts: add "
                "one."
            )
        self._tokenizer = tokenizer
        self.prompts = read_prompts(folder)
        self.pooling = read_pooling(folder) or Pooling()
        self.pooling.check()

    @property
    def max_length(self) -> int:
        """Maximum number of tokens in a text; the rest is cut off."""
        return self._tokenizer.max_length

    def read(self, texts: Sequence[str], prompt: str | None = None) -> ReadTexts:
        """Texts preceded by ``prompt`` (default: the folder's). CheckpointError for invalid ids."""
        before = self.prompts.default if prompt is None else prompt
        tokens, _ = self._tokenizer.encode_truncated(as_texts(list(texts), before))
        rows = TokenRows.of([each.ids for each in tokens], [each.type_ids for each in tokens])
        check_ids(self._folder, self._config, rows.ids, rows.type_ids)
        count = self._tokenizer.count_before(before) if before else 0
        return ReadTexts(rows, np.full(len(rows), count, np.int64))
