"""One vector per token of a text (multi-vector embeddings), and their scores (MaxSim)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken

from sparsebert.checkpoint.multi_vector import MultiVector, Task
from sparsebert.checkpoint.vector_layers import width_behind
from sparsebert.errors import CheckpointError, InputError
from sparsebert.inference.batching import Floats
from sparsebert.inference.pooling import layer_function
from sparsebert.inference.sequences import Tokens
from sparsebert.inference.tokenizing import TextTokenizer

TASKS: tuple[Task, ...] = ("query", "document")


def check_task(task: str) -> None:
    """InputError for anything but "query" and "document"."""
    if task not in TASKS:
        raise InputError(f"task must be 'query' or 'document', not {task!r}.")


class TokenVectors:
    """Lengths and expansion of a model's token sequences, and vectors from its hidden states."""

    def __init__(
        self, multi_vector: MultiVector, tokenizer: TextTokenizer | None, hidden_size: int
    ) -> None:
        self.of = multi_vector
        self.width = width_behind(multi_vector.layers, hidden_size)
        self._tokenizer = tokenizer
        if tokenizer is not None:
            _add_markers(tokenizer, multi_vector.markers)

    @cached_property
    def _layers(self) -> list[Callable[[Floats], Floats]]:
        return [layer_function(layer) for layer in self.of.layers]

    @cached_property
    def _skipped(self) -> npt.NDArray[np.int32]:
        """Ids of the words that are left out; words that are not a single token are ignored."""
        tokenizer = self._known_tokenizer
        ids = [tokenizer.backend.token_to_id(word) for word in self.of.skipped_words]
        return np.array([each for each in ids if each is not None], np.int32)

    @cached_property
    def _filling(self) -> int:
        """Id of the token that expands a query."""
        tokenizer, expansion = self._known_tokenizer, self.of.expansion
        named = expansion.token if expansion else None
        found = tokenizer.mask_id if named is None else tokenizer.backend.token_to_id(named)
        if found is None:
            raise CheckpointError(
                f"the tokenizer has no token {named or tokenizer.mask_token} to expand queries "
                "with."
            )
        return int(found)

    def limit(self, task: Task, longest: int, positions: int) -> int:
        """Maximum tokens of a text: the folder's own limit for the task, else ``longest``."""
        expansion = self.of.expansion if task == "query" else None
        own = self.of.lengths.get(task)
        if expansion is not None and expansion.fixed:
            own = expansion.length
        elif expansion is not None and own is not None:
            own = max(own, expansion.length)
        return min(own or longest, positions)

    def expanded(self, tokens: Sequence[Tokens], task: Task, positions: int) -> list[Tokens]:
        """Queries with the tokens that expand them; documents unchanged."""
        expansion = self.of.expansion if task == "query" else None
        if expansion is None:
            return [*tokens]
        if expansion.length > positions:
            raise CheckpointError(
                f"queries are expanded to {expansion.length} tokens, but the model takes at most "
                f"{positions}."
            )
        made = []
        for each in tokens:
            missing = expansion.length - len(each)
            if missing > 0:
                ids = np.pad(each.ids, (0, missing), constant_values=self._filling)
                types = np.pad(each.type_ids, (0, missing))
                each = Tokens(ids, types, None if expansion.attend else len(each))
            made.append(each)
        return made

    def vectors(self, states: Floats, tokens: Tokens, task: Task) -> Floats:
        """Vectors, float32 ``[kept, width]``, from a text's last hidden states."""
        kept = np.ones(len(tokens), bool)
        kept[: self.of.first] = False
        if task in self.of.skipped_in and self.of.skipped_words:
            kept &= ~np.isin(tokens.ids, self._skipped)
        if task != "query" and self.of.kept_ids:
            kept &= np.isin(tokens.ids, self.of.kept_ids)
        found = np.asarray(states[kept])
        for layer in self._layers:
            found = layer(found)
        return found

    def scores(self, query: Floats, documents: Iterable[Floats]) -> Floats:
        """The score of each document, float32 ``[documents]``."""
        return max_similarities(query, documents, mean=self.of.mean)

    @property
    def _known_tokenizer(self) -> TextTokenizer:
        assert self._tokenizer is not None  # callers have tokens, so there is one
        return self._tokenizer


def max_similarities(query: Floats, documents: Iterable[Floats], *, mean: bool = False) -> Floats:
    """MaxSim: the sum over the query's vectors of the largest product with one of the document's.

    ``query`` and each document are ``[vectors, width]``; with ``mean``, it is the mean instead of
    the sum. A document without vectors ranks last.
    """
    lowest = np.finfo(np.float32).min
    scores = [
        (query @ document.T).max(axis=1).sum() if len(document) else lowest
        for document in documents
    ]
    count = np.float32(max(1, len(query)) if mean else 1)
    return np.asarray(np.array(scores, np.float32) / count)


def _add_markers(tokenizer: TextTokenizer, markers: Sequence[str]) -> None:
    """Make the tokenizer read each marker that is in the vocabulary as a single token.

    This matches sentence-transformers, which inserts them as token ids. Other markers are plain
    text.
    """
    backend = tokenizer.backend
    for marker in markers:
        for text in (marker, *marker.split(None, 1)[:1]):
            if not text.strip() or backend.token_to_id(text) is None:
                continue
            if backend.encode(text, add_special_tokens=False).tokens != [text]:
                backend.add_special_tokens([AddedToken(text, normalized=False, special=True)])
            break
