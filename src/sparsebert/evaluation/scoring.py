"""Scoring a model on a split: a predictor's logits, the answers in them, and the metrics.

A split is tokenised once (`PreparedSplit`) and can be scored by any predictor, any number of times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import ScoreFunction
from sparsebert.errors import DataError
from sparsebert.evaluation.entities import entity_scores
from sparsebert.evaluation.label_sets import given_labels, label_set_scores
from sparsebert.evaluation.metrics import (
    Scores,
    classification_scores,
    regression_scores,
)
from sparsebert.evaluation.predictors import Predictor
from sparsebert.evaluation.squad import answer_scores
from sparsebert.evaluation.unanswerable import said_texts, unanswerable_scores
from sparsebert.evaluation.user_metric import UserMetric
from sparsebert.inference.answering import best_spans, merge_spans, null_score
from sparsebert.inference.labelling import apply_function, sigmoid
from sparsebert.progress import Progress, silent
from sparsebert.tasks.examples import Examples
from sparsebert.tasks.labels import OUTSIDE
from sparsebert.tasks.table import CUSTOM, Kind, Task
from sparsebert.tasks.tokens import TokenRows, tokenize
from sparsebert.tasks.windows import Windows, cut_windows
from sparsebert.tasks.word_tokens import WordTokens, tokenize_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

N_BEST = 20
MAX_ANSWER_LENGTH = 30  # tokens, as in the reference implementation


Located = Windows | WordTokens | None
Order = npt.NDArray[np.int64] | None


class ScoredSplit(Protocol):
    """Examples that can be scored with a predictor of logits or a model that embeds."""

    @property
    def examples(self) -> Examples:
        """The examples to score."""

    def score(
        self,
        predictor: Any,
        order: npt.NDArray[np.int64] | None = None,
        progress: Progress | None = None,
    ) -> Scores:
        """The task's metrics; ``order`` maps the task's labels to those of the model's head."""


@dataclass(frozen=True)
class PreparedSplit:
    """Examples with their tokens, and optionally a user's own metric.

    ``located`` maps tokens back to the text: the windows of SQuAD's contexts, or the words of named
    entity recognition; it is None for whole texts. ``function`` turns a regression's logits into
    the numbers that it predicts.
    """

    examples: Examples
    rows: TokenRows
    located: Located = None
    metric: UserMetric | None = None
    function: ScoreFunction = "none"

    @classmethod
    def make(
        cls,
        examples: Examples,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        progress: Progress | None = None,
        *,
        metric: UserMetric | None = None,
        function: ScoreFunction = "none",
    ) -> PreparedSplit:
        """Tokenise ``examples``, truncated to ``max_length`` tokens (SQuAD: in windows of that)."""
        located: Windows | WordTokens
        if examples.task.kind is Kind.QUESTION:
            located = cut_windows(tokenizer, examples, max_length, progress=progress)
        elif examples.task.kind is Kind.TOKENS:
            located = tokenize_words(tokenizer, examples, max_length, progress)
        else:
            rows = tokenize(tokenizer, examples, max_length, progress)
            return cls(examples, rows, metric=metric, function=function)
        return cls(examples, located.rows, located, metric)

    def score(
        self, predictor: Predictor, order: Order = None, progress: Progress | None = None
    ) -> Scores:
        """Run the predictor and compute the task's metrics.

        ``order`` maps the task's label indices to those of the model's head
        (`sparsebert.tasks.labels.label_order`); None where they are the same.
        """
        return self.scores_of(self.logits(predictor, progress), order)

    def logits(self, predictor: Predictor, progress: Progress | None = None) -> Any:
        """The logits of each row, or of each window for SQuAD."""
        task = self.examples.task
        label = f"evaluating {task.name} {self.examples.split}"
        return predictor.predict(self.rows, task.head, label, progress or silent)

    def judge(self, logits: Any, order: Order = None) -> Judged:
        """Scores and answers for `logits`, with the expected answers; ``order`` as in `score`."""
        if order is not None:
            per_row = isinstance(logits, np.ndarray)
            logits = logits[:, order] if per_row else [row[:, order] for row in logits]
        if self.examples.task.kind is Kind.REGRESSION:
            logits = apply_function(logits, self.function)
        return _JUDGES[self.examples.task.kind](self.examples, self.located, logits)

    def scores_of(self, logits: Any, order: Order = None) -> Scores:
        """The task's metrics for `logits`, and the user's; ``order`` as in `score`."""
        found = self.judge(logits, order)
        if self.metric is None:
            return found.scores
        return found.scores.and_values(self.metric.score(found.expected, found.predicted))


@dataclass(frozen=True)
class Judged:
    """A split's scores, with expected and predicted values as passed to a user's metric.

    These have one entry per row (`sparsebert.evaluation.user_metric`): class names, numbers, the
    labels of a row's words, or the accepted answers and the predicted one.
    """

    scores: Scores
    expected: Any
    predicted: Any


def _judge_classes(examples: Examples, located: Located, logits: Any) -> Judged:
    task = examples.task
    predicted = np.argmax(logits, axis=1)
    expected: Any = examples.labels
    return Judged(
        classification_scores(task.metrics, predicted, expected, task.labels, task.positive),
        [task.labels[index] for index in expected],
        [task.labels[index] for index in predicted],
    )


def _judge_label_sets(examples: Examples, located: Located, logits: Any) -> Judged:
    task = examples.task
    assert task.threshold is not None
    probabilities: Any = sigmoid(logits)
    expected: Any = examples.labels
    scores = label_set_scores(task.metrics, probabilities, expected, task.labels, task.threshold)
    right, given = (
        [[task.labels[index] for index in np.flatnonzero(row)] for row in rows]
        for rows in (expected, given_labels(probabilities, task.threshold))
    )
    return Judged(scores, right, given)


def _judge_numbers(examples: Examples, located: Located, logits: Any) -> Judged:
    expected, predicted = examples.labels.astype(np.float64), logits[:, 0]
    scores = regression_scores(examples.task.metrics, predicted, expected)
    return Judged(scores, expected, predicted)


def _judge_spans(examples: Examples, located: Located, logits: Any) -> Judged:
    assert isinstance(located, Windows)
    task = examples.task
    texts, nulls = best_texts(examples, located, logits)
    expected = [list(each.texts) for each in examples.answers]
    if not task.unanswerable:
        return Judged(answer_scores(task.metrics, texts, examples.answers), expected, texts)
    assert task.threshold is not None
    scores = unanswerable_scores(task.metrics, texts, nulls, examples.answers, task.threshold)
    return Judged(scores, expected, said_texts(texts, nulls, task.threshold))


def _judge_words(examples: Examples, located: Located, logits: Any) -> Judged:
    assert isinstance(located, WordTokens)
    task, read = examples.task, located.first >= 0
    expected = np.concatenate([words.labels for words in examples.words])
    predicted = word_labels(located, logits, task)
    guessed, right = (_named_rows(examples, labels) for labels in (predicted, expected))
    entities = OUTSIDE in task.labels
    if not entities and not read.any():
        raise DataError(f"{examples.source}: the model can read none of the words.")
    if entities:
        scores = entity_scores(task.metrics, guessed, right, task.labels)
    else:
        scores = classification_scores(task.metrics, predicted[read], expected[read], task.labels)
    if located.unread:
        note = (
            f"{located.unread:,} of {len(read):,} words are beyond the model's maximum length or "
            "give no token: they " + (f"count as {OUTSIDE}." if entities else "are left out.")
        )
        scores = replace(scores, notes=[*scores.notes, note])
    return Judged(scores, right, guessed)


def _named_rows(examples: Examples, labels: npt.NDArray[np.int64]) -> list[list[str]]:
    """Label indices of all words, concatenated, as names row by row."""
    ends = np.cumsum([len(words) for words in examples.words])[:-1]
    names = np.array(examples.task.labels, object)[labels]
    return [row.tolist() for row in np.split(names, ends)]


def word_labels(words: WordTokens, logits: Sequence[Any], task: Task) -> npt.NDArray[np.int64]:
    """The likeliest label of each word, int64 ``[words]``; for unread words O, else label 0.

    ``logits`` holds float ``[tokens, labels]`` for each row.
    """
    best = np.concatenate([np.argmax(row, axis=1) for row in logits])
    unread = task.labels.index(OUTSIDE) if OUTSIDE in task.labels else 0
    labels: npt.NDArray[np.int64] = np.where(words.first < 0, unread, best[words.first])
    return labels


_JUDGES: dict[Kind, Callable[[Examples, Located, Any], Judged]] = {
    Kind.CLASSIFICATION: _judge_classes,
    Kind.LABEL_SETS: _judge_label_sets,
    Kind.REGRESSION: _judge_numbers,
    Kind.TOKENS: _judge_words,
    Kind.QUESTION: _judge_spans,
}


def f1_note(task: Task) -> list[str]:
    """A note on which F1 a custom classification task is scored with."""
    if task.name != CUSTOM or "f1" not in task.metrics:
        return []
    if task.positive is not None:
        return [f"F1 is that of the class '{task.positive}'."]
    choice = "; --positive-label (positive_label=) selects that of one class"
    return [f"F1 is the mean over the classes (macro){choice if len(task.labels) == 2 else ''}."]


def best_texts(
    examples: Examples, windows: Windows, logits: Sequence[Any]
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """The best span of each question as text, and how much likelier "no answer" is.

    The latter is a difference of logits, float64 ``[questions]``, infinite where no span is
    possible. The search is that of transformers' ``postprocess_qa_predictions``: see
    `sparsebert.inference.answering`.
    """
    assert examples.pairs is not None
    spans: list[list[Any]] = [[] for _ in range(len(examples))]
    silent = np.full(len(examples), np.inf)
    for window, question in enumerate(windows.question):
        found = np.asarray(logits[window])
        silent[question] = min(silent[question], null_score([found]))
        spans[question].append(
            best_spans(
                found[:, 0],
                found[:, 1],
                windows.window_offsets(window),
                n_best=N_BEST,
                max_answer_length=MAX_ANSWER_LENGTH,
            )
        )
    texts, scores = [], np.full(len(examples), -np.inf)
    for question, each in enumerate(spans):
        best = merge_spans(each, n_best=N_BEST)[:1]
        if best:
            scores[question] = best[0].score
        texts.append(
            examples.pairs[question][best[0].start_char : best[0].end_char] if best else ""
        )
    return texts, silent - scores
