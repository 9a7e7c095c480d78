"""Texts that only the teacher has an answer to: a student learns from them what it does elsewhere.

A teacher fine-tuned on a few thousand rows gives on these what their labels say, and they tell a
student little about what it gives otherwise. On more texts of the same kind it shows (the
augmentation of TinyBERT, arXiv 1909.10351, with texts that exist instead of made ones).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsebert.errors import DataError
from sparsebert.tasks.examples import Examples, selection
from sparsebert.tasks.table import Kind, Task
from sparsebert.tasks.texts import Text, read_texts, single_texts
from sparsebert.training.options import FinetuneOptions


def read_unlabelled(options: FinetuneOptions, task: Task) -> Examples:
    """The texts that the options name, as examples of the task without labels.

    A task of pairs takes pairs; one of single texts takes both halves of a pair. A table has the
    columns of any known task, or this one's. Raises DataError for a task of spans, for single texts
    where pairs are asked for, and for what cannot be read.
    """
    source = str(options.unlabelled)
    if task.kind is Kind.QUESTION:
        raise DataError(f"{task.name} takes no unlabelled texts: they have no question.")
    texts: Sequence[Text] = read_texts(source, also=task.text_columns)
    if len(task.text_columns) == 1:
        texts = single_texts(texts)
    elif any(isinstance(row, str) for row in texts):
        raise DataError(
            f"{source} holds single texts and {task.name} reads pairs: give a table with two text "
            "columns."
        )
    chosen = selection(len(texts), options.unlabelled_rows)
    if chosen is not None:
        texts = [texts[row] for row in chosen]
    first = [row if isinstance(row, str) else row[0] for row in texts]
    second = [row[1] for row in texts if not isinstance(row, str)]
    none = np.zeros(0, np.int64)
    return Examples(task, "unlabelled", source, first, second or None, none, ids=[])
