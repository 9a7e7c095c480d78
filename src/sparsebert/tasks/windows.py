"""Questions with their contexts, split into overlapping windows that fit the model.

As in transformers' question-answering example, only the context is split, adjacent windows share
``doc_stride`` tokens, and in training the target of a window without the answer is its first token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparsebert.inference.sequences import LocatedTokens
from sparsebert.inference.tokenizing import TextTokenizer, usual_stride
from sparsebert.progress import Progress, silent
from sparsebert.tasks.examples import Examples
from sparsebert.tasks.tokens import TokenRows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHUNK = 250


@dataclass(frozen=True)
class Windows:
    """Windows of a split's questions.

    ``rows`` holds their tokens; ``offsets`` is int32 ``[tokens, 2]``, concatenated like
    ``rows.ids``: the characters of each token in its context, -1 for tokens outside it.
    ``question`` is int64 ``[windows]``: the index of each window's example. ``answer`` is int64
    ``[windows, 2]``: the first and last token of the first accepted answer, or 0 and 0 if the
    window does not contain it.
    """

    rows: TokenRows
    offsets: npt.NDArray[np.int32]
    question: npt.NDArray[np.int64]
    answer: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def window_offsets(self, index: int) -> npt.NDArray[np.int32]:
        """``offsets`` of one window, ``[tokens, 2]``."""
        return self.offsets[self.rows.offsets[index] : self.rows.offsets[index + 1]]


def cut_windows(
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    max_length: int,
    *,
    doc_stride: int | None = None,
    progress: Progress | None = None,
) -> Windows:
    """Windows of at most ``max_length`` tokens, the same that `Model.answer` uses.

    Adjacent windows share ``doc_stride`` tokens, at most a third of ``max_length``. A question that
    leaves too little room for context is truncated at a word boundary.
    """
    report = progress or silent
    label = f"tokenising {examples.task.name} {examples.split}"
    usual = usual_stride(max_length)
    stride = usual if doc_stride is None else min(doc_stride, max_length // 3)
    cutter = _text_tokenizer(tokenizer, max_length)
    assert examples.pairs is not None
    windows: list[LocatedTokens] = []
    question: list[int] = []
    answer: list[tuple[int, int]] = []
    for start in range(0, len(examples), _CHUNK):
        stop = min(start + _CHUNK, len(examples))
        pairs = list(zip(examples.texts[start:stop], examples.pairs[start:stop], strict=True))
        cut = cutter.windows_of_pairs(pairs, max_length=max_length, doc_stride=stride)
        for index, found in enumerate(cut, start):
            first = examples.answers[index]
            windows += found
            question += [index] * len(found)
            if not first.texts:
                answer += [(0, 0)] * len(found)
                continue
            begin, end = first.starts[0], first.starts[0] + len(first.texts[0])
            answer += [answer_tokens(window.offsets, begin, end) for window in found]
        report(label, stop, len(examples))
    return Windows(
        TokenRows.of(
            [window.tokens.ids for window in windows],
            [window.tokens.type_ids for window in windows],
        ),
        np.concatenate([window.offsets for window in windows]),
        np.array(question, np.int64),
        np.array(answer, np.int64).reshape(-1, 2),
    )


def _text_tokenizer(tokenizer: PreTrainedTokenizerBase, max_length: int) -> TextTokenizer:
    """The inference tokenizer, wrapped around transformers' backend."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    typed = "token_type_ids" in tokenizer.model_input_names
    return TextTokenizer(backend, max_length=max_length, type_vocab_size=2 if typed else None)


def answer_tokens(
    offsets: npt.NDArray[np.integer], start_char: int, end_char: int
) -> tuple[int, int]:
    """First and last token of characters ``[start_char, end_char)``; (0, 0) if not in the window.

    ``offsets`` is ``[tokens, 2]``, -1 for tokens outside the context.
    """
    context = np.flatnonzero(offsets[:, 0] >= 0)
    if not context.size:
        return 0, 0
    starts, ends = offsets[context, 0], offsets[context, 1]
    if starts[0] > start_char or ends[-1] < end_char:
        return 0, 0
    first = context[np.searchsorted(starts, start_char, side="right") - 1]
    last = context[np.searchsorted(ends, end_char, side="left")]
    return int(first), int(last)
