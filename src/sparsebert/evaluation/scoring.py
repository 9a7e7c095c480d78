"""A split made ready to be scored again and again: tokenised once, then any predictor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparsebert.evaluation.metrics import (
    Scores,
    answer_scores,
    classification_scores,
    regression_scores,
)
from sparsebert.evaluation.predictors import Predictor
from sparsebert.inference.answering import best_spans, merge_spans
from sparsebert.progress import Progress, silent
from sparsebert.tasks.examples import Examples
from sparsebert.tasks.table import CUSTOM, Kind, Task
from sparsebert.tasks.tokens import TokenRows, tokenize
from sparsebert.tasks.windows import Windows, cut_windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

N_BEST = 20
MAX_ANSWER_LENGTH = 30  # tokens, as in the reference implementation


@dataclass(frozen=True)
class PreparedSplit:
    """Examples and their tokens (``windows`` for SQuAD)."""

    examples: Examples
    rows: TokenRows
    windows: Windows | None = None

    @classmethod
    def make(
        cls,
        examples: Examples,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        progress: Progress | None = None,
    ) -> PreparedSplit:
        """Tokenise a split."""
        if examples.task.kind is Kind.QUESTION:
            windows = cut_windows(tokenizer, examples, max_length, progress=progress)
            return cls(examples, windows.rows, windows)
        return cls(examples, tokenize(tokenizer, examples, max_length, progress))

    def score(
        self,
        predictor: Predictor,
        order: npt.NDArray[np.int64] | None = None,
        progress: Progress | None = None,
    ) -> Scores:
        """Run the predictor and compute the task's metrics.

        ``order`` says where each of the task's labels stands in the model's head
        (`sparsebert.tasks.labels.label_order`); None if in the same place.
        """
        task, examples = self.examples.task, self.examples
        label = f"evaluating {task.name} {examples.split}"
        logits = predictor.predict(self.rows, task.head, label, progress or silent)
        if self.windows is not None:
            found = answer_texts(examples, self.windows, logits)
            return answer_scores(task.metrics, found, examples.answers)
        if task.kind is Kind.REGRESSION:
            targets = examples.labels.astype(np.float64)
            return regression_scores(task.metrics, logits[:, 0], targets)
        if order is not None:
            logits = logits[:, order]
        return classification_scores(
            task.metrics,
            np.argmax(logits, axis=1),
            examples.labels,  # type: ignore[arg-type]
            task.labels,
            task.positive,
        )


def f1_note(task: Task) -> list[str]:
    """Which F1 a custom classification's is; a benchmark's is known."""
    if task.name != CUSTOM or "f1" not in task.metrics:
        return []
    if task.positive is not None:
        return [f"F1 is that of the class '{task.positive}'."]
    choice = "; --positive-label (positive_label=) gives that of one class"
    return [f"F1 is the mean over the classes (macro){choice if len(task.labels) == 2 else ''}."]


def answer_texts(examples: Examples, windows: Windows, logits: Sequence[Any]) -> list[str]:
    """The best answer of each question in words, "" where no span is possible.

    ``logits`` holds float ``[tokens, 2]`` for each window. The search is that of transformers'
    ``postprocess_qa_predictions``: see `sparsebert.inference.answering`.
    """
    assert examples.pairs is not None
    spans: list[list[Any]] = [[] for _ in range(len(examples))]
    for window, question in enumerate(windows.question):
        spans[question].append(
            best_spans(
                logits[window][:, 0],
                logits[window][:, 1],
                windows.row_places(window),
                n_best=N_BEST,
                max_answer_length=MAX_ANSWER_LENGTH,
            )
        )
    texts = []
    for question, found in enumerate(spans):
        best = merge_spans(found, n_best=N_BEST)[:1]
        texts.append(
            examples.pairs[question][best[0].start_char : best[0].end_char] if best else ""
        )
    return texts
