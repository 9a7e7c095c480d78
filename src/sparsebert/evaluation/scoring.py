"""Scoring a model on a split: which examples, cut to how many tokens, and the metrics.

A split is tokenised once (`PreparedSplit`) and scored by any predictor, any number of times. What
is measured is what is served: texts are cut to the length at which the model answers, and a model
that was fine-tuned here is scored on the columns and the held-out examples of its training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint import Checkpoint, EncoderConfig
from sparsebert.checkpoint.auxiliary_files import TRAINING_NAME
from sparsebert.checkpoint.json_files import read_object
from sparsebert.errors import DataError
from sparsebert.evaluation.metrics import (
    Scores,
    answer_scores,
    classification_scores,
    regression_scores,
)
from sparsebert.evaluation.predictors import Predictor
from sparsebert.evaluation.user_metric import UserMetric
from sparsebert.inference.answering import best_spans, merge_spans, window_length
from sparsebert.inference.tokenizing import folder_tokenizer
from sparsebert.progress import Progress, silent
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.division import read_division
from sparsebert.tasks.examples import Examples, load_split, selection, validation_splits
from sparsebert.tasks.files import file_type, no_split, undivided_file
from sparsebert.tasks.table import CUSTOM, Kind, Task, task_name
from sparsebert.tasks.tokens import TokenRows, tokenize
from sparsebert.tasks.windows import Windows, cut_windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

N_BEST = 20
MAX_ANSWER_LENGTH = 30  # tokens, as in the reference implementation


@dataclass(frozen=True)
class PreparedSplit:
    """Examples and their tokens (``windows`` for SQuAD), and a metric of the user's own."""

    examples: Examples
    rows: TokenRows
    windows: Windows | None = None
    metric: UserMetric | None = None

    @classmethod
    def make(
        cls,
        examples: Examples,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        progress: Progress | None = None,
        *,
        metric: UserMetric | None = None,
    ) -> PreparedSplit:
        """Tokenise ``examples``, cut to ``max_length`` tokens (SQuAD: in windows of as many)."""
        if examples.task.kind is Kind.QUESTION:
            windows = cut_windows(tokenizer, examples, max_length, progress=progress)
            return cls(examples, windows.rows, windows, metric)
        rows = tokenize(tokenizer, examples, max_length, progress)
        return cls(examples, rows, metric=metric)

    def score(
        self,
        predictor: Predictor,
        order: npt.NDArray[np.int64] | None = None,
        progress: Progress | None = None,
    ) -> Scores:
        """Run the predictor and compute the task's metrics.

        ``order`` maps the task's label indices to those of the model's head
        (`sparsebert.tasks.labels.label_order`); None where they are the same.
        """
        return self.scores_of(self.logits(predictor, progress), order)

    def logits(self, predictor: Predictor, progress: Progress | None = None) -> Any:
        """What the predictor's head gives for each row."""
        task = self.examples.task
        label = f"evaluating {task.name} {self.examples.split}"
        return predictor.predict(self.rows, task.head, label, progress or silent)

    def scores_of(self, logits: Any, order: npt.NDArray[np.int64] | None = None) -> Scores:
        """The task's metrics of `logits`, and the user's; ``order`` is that of `score`."""
        task, examples = self.examples.task, self.examples
        expected: Any
        predicted: Any
        if self.windows is not None:
            predicted = answer_texts(examples, self.windows, logits)
            expected = [list(each.texts) for each in examples.answers]
            scores = answer_scores(task.metrics, predicted, examples.answers)
        elif task.kind is Kind.REGRESSION:
            predicted = logits[:, 0]
            expected = examples.labels.astype(np.float64)
            scores = regression_scores(task.metrics, predicted, expected)
        else:
            found = np.argmax(logits if order is None else logits[:, order], axis=1)
            labels: Any = examples.labels
            scores = classification_scores(task.metrics, found, labels, task.labels, task.positive)
            expected = [task.labels[index] for index in labels]
            predicted = [task.labels[index] for index in found]
        if self.metric is not None:
            scores = scores.and_values(self.metric.score(expected, predicted))
        return scores


def f1_note(task: Task) -> list[str]:
    """A note that says which F1 a custom classification is scored by."""
    if task.name != CUSTOM or "f1" not in task.metrics:
        return []
    if task.positive is not None:
        return [f"F1 is that of the class '{task.positive}'."]
    choice = "; --positive-label (positive_label=) gives that of one class"
    return [f"F1 is the mean over the classes (macro){choice if len(task.labels) == 2 else ''}."]


def answer_texts(examples: Examples, windows: Windows, logits: Sequence[Any]) -> list[str]:
    """The best answer span of each question as text, "" where no span is possible.

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
                windows.window_offsets(window),
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


def trained_options(folder: Path, task: str, given: DataOptions) -> DataOptions:
    """``given``, with unset columns and positive label filled in from the folder's training record.

    A record of another task is ignored. Raises CheckpointError for a damaged training.json.
    """
    path = folder / TRAINING_NAME
    arguments: Any = read_object(path).get("arguments") if path.is_file() else None
    if not isinstance(arguments, dict) or arguments.get("task") != task_name(task):
        return given
    names = ["label_column", "positive_label"]
    if given.text_column is None:
        names += ["text_column", "pair_column"]
    known = {
        name: arguments[name]
        for name in names
        if getattr(given, name) is None and isinstance(arguments.get(name), str)
    }
    return replace(given, **known)


def scored_examples(
    folder: Path,
    task: Task,
    data: str | Path | None,
    split: str | None,
    max_rows: int | None = None,
) -> list[Examples]:
    """The examples to score the model in ``folder`` on: the validation splits, or ``split``.

    Of a single file that is not named after a split all examples are scored, unless the model was
    trained on part of it: then the held-out ones. Raises DataError and CheckpointError.
    """
    file = undivided_file(data)
    if file is None:
        splits = validation_splits(task, data) if split is None else (split,)
        if not splits:
            assert data is not None
            raise no_split(Path(data), task.validation_splits[0])
        return [load_split(task, data, each, max_rows=max_rows) for each in splits]
    name = split or task.validation_splits[0]
    division = read_division(folder)
    whole = load_split(task, file, name)
    if division is None:
        found = whole
    elif division.is_of(file):
        train, held = division.parts(whole, name)
        found = train if split == "train" else held
        which = "that the model was trained on" if split == "train" else "held out of its training"
        found = _noted(found, f"{file.name}: scored on the {len(found):,} rows {which}.")
    elif division.file == file.name:
        raise DataError(
            f"{file} is not the {file.name} that the model was trained on, so that nobody can tell "
            "which of its rows the model has seen: give rows that it has not seen in a file "
            f"{name}{file_type(file)}."
        )
    else:
        found = _noted(
            whole,
            f"{file.name}: all rows were scored; whether some of them stood in {division.file}, on "
            "which the model was trained, was not looked at.",
        )
    rows = selection(len(found), max_rows)
    return [found if rows is None else found.take(rows, name)]


def _noted(examples: Examples, note: str) -> Examples:
    return replace(examples, notes=(*examples.notes, note))


def text_limit(checkpoint: Checkpoint) -> int:
    """The length in tokens to which `sparsebert.load` would cut texts for this model."""
    positions = checkpoint.config.max_length
    tokenizer = folder_tokenizer(checkpoint.path, positions=positions)
    return tokenizer.max_length if tokenizer else positions


def example_length(task: Task, config: EncoderConfig, limit: int) -> int:
    """The length in tokens of an example of a task, for a model with ``limit`` tokens a text."""
    return window_length(config, limit) if task.kind is Kind.QUESTION else limit


def check_positions(max_length: int | None, config: EncoderConfig, model: str) -> None:
    """DataError if ``max_length`` exceeds the model's positions."""
    if max_length is not None and max_length > config.max_length:
        raise DataError(
            f"max_length {max_length} is more than the {config.max_length} tokens that {model} has "
            f"positions for: give {config.max_length} at most."
        )
