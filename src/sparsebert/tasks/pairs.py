"""Scored pairs of texts, for an embedding model: a pair's cosine should match its score.

The file has the columns ``text1`` and ``text2`` (or ``sentence1`` and ``sentence2``), and ``score``
or ``label`` with numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sparsebert.errors import DataError
from sparsebert.tasks.columns import need_columns
from sparsebert.tasks.custom import label_column, text_columns
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.reading import RawTable
from sparsebert.tasks.table import EMBEDDING_LENGTH, PAIRS, Kind, Task


def pairs_of_table(raw: RawTable, labels: Sequence[str] | None, options: DataOptions) -> Task:
    """The task that a table describes; see `sparsebert.tasks.own`. Raises DataError."""
    refused = ("positive_label", "label_names", "label_columns", "threshold")
    options.refuse(*refused, why=f"is for classes, but {PAIRS} have scores")
    table, source = raw.table, raw.source
    columns = options.text_columns or text_columns(table, source, count=2)
    if len(columns) != 2:
        raise DataError(f"{PAIRS} have two texts per row: pass text_column and pair_column.")
    label = options.label_column or label_column(table, source)
    need_columns(table, (*columns, label), source)
    return Task(
        name=PAIRS,
        title="pairs",
        kind=Kind.PAIRS,
        text_columns=columns,
        metrics=("spearman", "pearson"),
        main_metric="spearman",
        label_column=label,
        max_length=EMBEDDING_LENGTH,
    )


def as_cosines(scores: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], str | None]:
    """Scores as the cosines to learn, float32 ``[rows]``, and a note if they were rescaled.

    Scores within -1 to 1 are taken as cosines. Others, such as 0 to 5, are mapped linearly, the
    lowest score to 0 and the highest to 1. DataError if all are the same.
    """
    low, high = float(scores.min()), float(scores.max())
    if low == high:
        raise DataError(f"every pair has the score {low:g}: there is nothing to learn.")
    if low >= -1 and high <= 1:
        return scores, None
    cosines = np.asarray((scores - low) / (high - low), np.float32)
    return cosines, f"the scores range from {low:g} to {high:g}: mapped to cosines from 0 to 1."
