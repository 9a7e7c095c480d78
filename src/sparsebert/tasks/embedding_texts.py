"""How an embedding model's folder reads texts: its tokenizer, its length, its prompts."""

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
    """Token ids of texts, each behind its prompt; the first ``skipped`` tokens are not pooled.

    ``skipped`` is int64 ``[texts]``.
    """

    rows: TokenRows
    skipped: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def and_texts(self, more: ReadTexts) -> ReadTexts:
        """These and then ``more``."""
        return ReadTexts(
            self.rows.and_rows(more.rows), np.concatenate([self.skipped, more.skipped])
        )


class TextReader:
    """Reads texts as `sparsebert.load` would, for a model that runs on torch.

    ``prompts`` are the folder's and ``pooling`` its way from tokens to an embedding: the mean,
    where it has no modules. Longer texts than ``max_length`` tokens (by default the folder's own
    limit) are cut. Raises CheckpointError for a folder without a tokenizer, or whose texts cannot
    be embedded.
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
        """Tokens of a text that are read."""
        return self._tokenizer.max_length

    def read(self, texts: Sequence[str], prompt: str | None = None) -> ReadTexts:
        """Texts behind ``prompt``, by default the folder's own. CheckpointError for odd ids."""
        before = self.prompts.default if prompt is None else prompt
        tokens, _ = self._tokenizer.encode_truncated(as_texts(list(texts), before))
        rows = TokenRows.of([each.ids for each in tokens], [each.type_ids for each in tokens])
        check_ids(self._folder, self._config, rows.ids, rows.type_ids)
        left_out = before and not self.pooling.include_prompt
        skipped = self._tokenizer.count_before(before) if left_out else 0
        return ReadTexts(rows, np.full(len(rows), skipped, np.int64))
