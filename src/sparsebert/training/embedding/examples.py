"""Rows of texts that are each encoded by themselves, and how they become batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparsebert.progress import Progress
from sparsebert.tasks.embedding_texts import ReadTexts, TextReader
from sparsebert.tasks.examples import Examples
from sparsebert.tasks.pairs import as_cosines
from sparsebert.tasks.table import Kind
from sparsebert.tasks.tokens import TokenRows
from sparsebert.torch_models import padded_batch

if TYPE_CHECKING:
    import torch

_CHUNK = 1000  # texts tokenised between two progress reports


@dataclass(frozen=True)
class EmbeddingExamples:
    """The distinct texts, one for each combination of prompt and text, and the rows made of them.

    ``texts`` holds the indices of each row's texts, int64 ``[examples, columns]``: the two of a
    pair, or query, document and negatives. ``labels`` is float32 ``[examples]``: the cosines to
    learn (unused for retrieval). ``answers`` maps each query to the documents that answer it in any
    row, all by index.
    """

    kind: Kind
    read: ReadTexts
    texts: npt.NDArray[np.int64]
    labels: npt.NDArray[np.float32]
    answers: dict[int, set[int]] = field(default_factory=dict, repr=False)

    @classmethod
    def make(cls, examples: Examples, reader: TextReader, progress: Progress) -> EmbeddingExamples:
        """Tokenise ``examples``. Raises DataError for scores that are all the same."""
        assert examples.pairs is not None
        retrieval = examples.task.kind is Kind.RETRIEVAL
        prompts = reader.prompts
        before, behind = (
            (prompts.query, prompts.document) if retrieval else (prompts.default, prompts.default)
        )
        columns = [
            (examples.texts, before),
            *(
                (texts, behind)
                for texts in (examples.pairs, *zip(*examples.negatives, strict=True))
            ),
        ]
        index: dict[tuple[str, str], int] = {}
        rows = [
            [index.setdefault((prompt, text), len(index)) for text in column]
            for column, prompt in columns
        ]
        texts = np.array(rows, np.int64).T
        labels = np.zeros(len(examples), np.float32)
        answers: dict[int, set[int]] = defaultdict(set)
        if retrieval:
            for query, document in texts[:, :2].tolist():
                answers[query].add(document)
        else:
            labels, _ = as_cosines(np.asarray(examples.labels, np.float32))
        label = f"tokenising {examples.task.name} {examples.split}"
        read = _read(list(index), reader, label, progress)
        return cls(examples.task.kind, read, texts, labels, dict(answers))

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def tokens(self) -> TokenRows:
        """The tokens of all distinct texts."""
        return self.read.rows

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of the longest text of each example, int64 ``[examples]``."""
        lengths: npt.NDArray[np.int64] = self.tokens.lengths[self.texts].max(axis=1)
        return lengths

    @property
    def apart(self) -> npt.NDArray[np.int64] | None:
        """For retrieval, where a step's documents are each other's negatives, each row's texts."""
        return self.texts if self.kind is Kind.RETRIEVAL else None

    def and_unlabelled(self, read: ReadTexts) -> EmbeddingExamples:
        """These examples followed by ``read``, each text an example of its own without a label."""
        first = len(self.read)
        alone = np.arange(first, first + len(read))[:, None].repeat(self.texts.shape[1], axis=1)
        return replace(
            self,
            read=self.read.and_texts(read),
            texts=np.concatenate([self.texts, alone]),
            labels=np.concatenate([self.labels, np.zeros(len(read), np.float32)]),
        )

    def batch(self, chosen: Sequence[int]) -> dict[str, torch.Tensor]:
        """The distinct texts of the ``chosen`` examples, padded, and what to learn from them.

        Besides ``input_ids`` and so on ``[texts, tokens]``, there are int64 ``prompt_tokens`` and
        ``texts`` ``[texts]`` (indices among all texts), ``pairs`` ``[examples, 2]`` (positions in
        the batch's texts), ``labels`` and ``indices`` ``[examples]``. For retrieval, also
        ``documents`` ``[documents]`` (positions of the candidates), ``wanted`` ``[examples]`` (a
        position among these) and bool ``passed_over`` ``[examples, documents]``: documents that are
        right for the query in another row, or equal to it, and so do not count against it.
        """
        import torch

        indices = np.asarray(chosen, np.int64)
        rows = self.texts[indices]
        texts, flat = np.unique(rows, return_inverse=True)
        places = flat.reshape(rows.shape)
        found = {
            "prompt_tokens": self.read.prompt_tokens[texts],
            "texts": texts,
            "pairs": places[:, :2],
            "labels": self.labels[indices],
            "indices": indices,
        }
        if self.kind is Kind.RETRIEVAL:
            documents, wanted = np.unique(places[:, 1:], return_inverse=True)
            wanted = wanted.reshape(len(rows), -1)[:, 0]
            found |= {
                "documents": documents,
                "wanted": wanted,
                "passed_over": self._passed_over(rows[:, 0], texts[documents], wanted),
            }
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(each)) for name, each in found.items()
        }
        return {**padded_batch(self.tokens, texts), **tensors}

    def _passed_over(
        self,
        queries: npt.NDArray[np.int64],
        documents: npt.NDArray[np.int64],
        wanted: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.bool_]:
        known = [[*self.answers.get(query, ()), query] for query in queries.tolist()]
        passed = np.stack([np.isin(documents, row) for row in known])
        passed[np.arange(len(queries)), wanted] = False
        return passed

    def set_epoch(self, epoch: int) -> None:
        """Does nothing: batches do not depend on the epoch."""


def _read(
    texts: Sequence[tuple[str, str]], reader: TextReader, label: str, progress: Progress
) -> ReadTexts:
    """Read pairs of prompt and text, in order; texts with the same prompt are read together."""
    parts, order = [], []
    for prompt in dict.fromkeys(prompt for prompt, _ in texts):
        rows = [row for row, (each, _) in enumerate(texts) if each == prompt]
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            parts.append(reader.read([texts[row][1] for row in chunk], prompt))
            order += chunk
            progress(label, len(order), len(texts))
    return ReadTexts.joined(parts).take(np.argsort(order))


def read_unlabelled_texts(examples: Examples, reader: TextReader, progress: Progress) -> ReadTexts:
    """Read texts without labels, after the folder's default prompt."""
    pairs = [(reader.prompts.default, text) for text in examples.texts]
    return _read(pairs, reader, f"tokenising {examples.split}", progress)
