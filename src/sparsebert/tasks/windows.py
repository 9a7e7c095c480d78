"""Questions with their contexts, cut into overlapping windows that fit the model.

As transformers' question-answering example does it: only the context is cut, neighbours share
``doc_stride`` tokens, and in training a window without the answer points at its first token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparsebert.progress import Progress, silent
from sparsebert.tasks.examples import Examples
from sparsebert.tasks.tokens import TokenRows, token_types, unlimited

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DOC_STRIDE = 128
_CHUNK = 250


@dataclass(frozen=True)
class Windows:
    """Windows of a split's questions.

    ``rows`` holds their tokens; ``places`` is int32 ``[tokens, 2]``, end to end like ``rows.ids``:
    the characters of each token in its context, -1 where a token is not of it. ``question`` is
    int64 ``[windows]``: which example each is of. ``answer`` is int64 ``[windows, 2]``: the first
    and last token of the first accepted answer, 0 and 0 where the window does not hold it.
    """

    rows: TokenRows
    places: npt.NDArray[np.int32]
    question: npt.NDArray[np.int64]
    answer: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def row_places(self, index: int) -> npt.NDArray[np.int32]:
        """``places`` of one window, ``[tokens, 2]``."""
        return self.places[self.rows.offsets[index] : self.rows.offsets[index + 1]]


def cut_windows(
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    max_length: int,
    *,
    doc_stride: int = DOC_STRIDE,
    progress: Progress | None = None,
) -> Windows:
    """Windows of at most ``max_length`` tokens; ``doc_stride`` is at most a third of that.

    A question too long to leave room for context is cut at a word.
    """
    report = progress or silent
    label = f"tokenising {examples.task.name} {examples.split}"
    stride = min(doc_stride, max_length // 3)
    special_tokens = tokenizer.num_special_tokens_to_add(pair=True)
    longest_question = max_length - special_tokens - stride - 1
    assert examples.pairs is not None
    ids: list[list[int]] = []
    type_ids: list[list[int]] = []
    places: list[npt.NDArray[np.int32]] = []
    question: list[int] = []
    answer: list[tuple[int, int]] = []
    for start in range(0, len(examples), _CHUNK):
        part = slice(start, start + _CHUNK)
        with unlimited(tokenizer):
            asked = _short_questions(tokenizer, examples.texts[part], longest_question)
            encoded: Any = tokenizer(
                asked,
                examples.pairs[part],
                truncation="only_second",
                max_length=max_length,
                stride=stride,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
                return_attention_mask=False,
            )
        ids += encoded["input_ids"]
        type_ids += token_types(encoded)
        for window, local in enumerate(encoded["overflow_to_sample_mapping"]):
            in_context = np.array([part == 1 for part in encoded.sequence_ids(window)])
            offsets = np.array(encoded["offset_mapping"][window], np.int32).reshape(-1, 2)
            offsets[~in_context] = -1
            places.append(offsets)
            question.append(start + local)
            accepted = examples.answers[start + local]
            answer.append(
                answer_tokens(
                    offsets, accepted.starts[0], accepted.starts[0] + len(accepted.texts[0])
                )
            )
        report(label, min(start + _CHUNK, len(examples)), len(examples))
    return Windows(
        TokenRows.of(ids, type_ids),
        np.concatenate(places),
        np.array(question, np.int64),
        np.array(answer, np.int64).reshape(-1, 2),
    )


def answer_tokens(
    places: npt.NDArray[np.integer], start_char: int, end_char: int
) -> tuple[int, int]:
    """First and last token of the characters ``[start_char, end_char)``; (0, 0) if not in here.

    ``places`` is ``[tokens, 2]``, -1 where a token is not of the context.
    """
    context = np.flatnonzero(places[:, 0] >= 0)
    if not context.size:
        return 0, 0
    starts, ends = places[context, 0], places[context, 1]
    if starts[0] > start_char or ends[-1] < end_char:
        return 0, 0
    first = context[np.searchsorted(starts, start_char, side="right") - 1]
    last = context[np.searchsorted(ends, end_char, side="left")]
    return int(first), int(last)


def _short_questions(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], longest: int
) -> list[str]:
    """The questions without blanks in front (some of SQuAD's have hundreds), cut where too long."""
    asked = [question.lstrip() for question in questions]
    encoded: Any = tokenizer(asked, add_special_tokens=False, return_offsets_mapping=True)
    for index, ids in enumerate(encoded["input_ids"]):
        if len(ids) > longest:
            words = encoded.word_ids(index)
            stop = longest
            while stop > 1 and words[stop] == words[stop - 1]:
                stop -= 1
            asked[index] = asked[index][: encoded["offset_mapping"][index][stop - 1][1]]
    return asked
