"""Rows of texts that are read one by one, and the batches that are made of them."""

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

_CHUNK = 1000  # texts tokenised between two reports of progress


@dataclass(frozen=True)
class EmbeddingExamples:
    """Distinct texts, each once for each prompt, and which of them a row has.

    ``texts`` is int64 ``[examples, columns]``: the two of a pair, or query, document and negatives.
    ``labels`` is float32 ``[examples]``: cosines to learn, without a meaning for a retrieval.
    ``answers`` has the documents that each query looks for in some row, by their indices.
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
        """What no two examples of a step should have in common: documents tell queries apart."""
        return self.texts if self.kind is Kind.RETRIEVAL else None

    def and_unlabelled(self, read: ReadTexts) -> EmbeddingExamples:
        """These and then ``read``, each text an example by itself that no label is learnt from."""
        first = len(self.read)
        alone = np.arange(first, first + len(read))[:, None].repeat(self.texts.shape[1], axis=1)
        return replace(
            self,
            read=self.read.and_texts(read),
            texts=np.concatenate([self.texts, alone]),
            labels=np.concatenate([self.labels, np.zeros(len(read), np.float32)]),
        )

    def batch(self, chosen: Sequence[int]) -> dict[str, torch.Tensor]:
        """The distinct texts of some examples, padded, and what is to be learnt of them.

        Beside ``input_ids`` and its like ``[texts, tokens]`` there are int64 ``prompt_tokens`` and
        ``texts`` ``[texts]`` (their indices among all), ``pairs`` ``[examples, 2]`` (places among
        the batch's texts), ``labels`` and ``indices`` ``[examples]``. For a retrieval also
        ``documents`` ``[documents]`` (places of those to tell apart), ``wanted`` ``[examples]`` (a
        place among these) and bool ``passed_over`` ``[examples, documents]``: what a query looks
        for in another row, or is itself, and so does not count against it.
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
        """Nothing: the batches of every epoch are made alike."""


def _read(
    texts: Sequence[tuple[str, str]], reader: TextReader, label: str, progress: Progress
) -> ReadTexts:
    """Prompts with texts, in order; those of one prompt are read together."""
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
    """Texts that only a teacher embeds, behind the folder's default prompt."""
    pairs = [(reader.prompts.default, text) for text in examples.texts]
    return _read(pairs, reader, f"tokenising {examples.split}", progress)
