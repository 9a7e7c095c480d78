"""Rows of labelled words: reading and checking columns of lists.

A row's text is its words joined by spaces, so that training and scores see the same tokens as plain
text would give, whatever the tokenizer. Each word is located by its characters in that text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparsebert.errors import DataError
from sparsebert.tasks.columns import (
    holds_lists,
    is_whole_number,
    label_indices,
    refuse_nulls,
    show,
    show_label,
    show_labels,
)
from sparsebert.tasks.table import Task

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class LabelledWords:
    """The words of one row.

    ``spans`` is int32 ``[words, 2]``: each word's characters ``[start, end)`` in the row's text;
    ``labels`` is int64 ``[words]``, indices into the task's labels.
    """

    spans: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def joined(words: Sequence[str]) -> str:
    """The text that a row of words forms."""
    return " ".join(words)


def word_spans(words: Sequence[str]) -> npt.NDArray[np.int32]:
    """The characters ``[start, end)`` of each word in their `joined` text, int32 ``[words, 2]``."""
    lengths = np.fromiter(map(len, words), np.int32, len(words))
    ends = np.cumsum(lengths + 1, dtype=np.int32) - 1
    return np.stack([ends - lengths, ends], axis=1)


def words_column(table: pa.Table, name: str, source: str) -> list[list[str]]:
    """A column of lists of words. DataError for another type, and for a missing row or word."""
    rows = _lists(table, name, source, "words")
    for row, words in enumerate(rows, 1):
        if not all(isinstance(word, str) for word in words):
            raise DataError(
                f"{source}: column '{name}', row {row}: {show(words)} is not a list of words."
            )
    return rows


def tag_names(table: pa.Table, name: str, source: str) -> list[list[str]]:
    """A column of lists of labels as text: names, or integers as digits. Raises DataError."""
    rows = _lists(table, name, source, "labels")
    found = []
    for row, tags in enumerate(rows, 1):
        if not all(type(tag) in (str, int) for tag in tags):
            raise DataError(
                f"{source}: column '{name}', row {row}: {show(tags)} is not a list of labels."
            )
        found.append([str(tag) for tag in tags])
    return found


def known_names(table: pa.Table, column: str) -> tuple[str, ...] | None:
    """The names for a column's numbers, if the ``datasets`` library stored them in the schema.

    None if the names are numbers themselves: then the column's are taken as they are.
    """
    import pyarrow as pa

    kind = table.schema.field(column).type
    if not pa.types.is_integer(kind.value_type if holds_lists(table, column) else kind):
        return None
    metadata = (table.schema.metadata or {}).get(b"huggingface")
    try:
        feature: Any = json.loads(metadata or b"{}")["info"]["features"][column]
        names = feature.get("feature", feature)["names"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    found = tuple(map(str, names))
    return None if any(map(is_whole_number, found)) else found


def labelled_words(
    words: Sequence[Sequence[str]], tags: Sequence[Sequence[str]], task: Task, source: str
) -> list[LabelledWords]:
    """Each row's words with their labels as indices into ``task.labels``.

    DataError if a row's numbers of words and labels differ, and for a label outside the set.
    """
    index = label_indices(all_tags(tags), task)
    found = []
    for row, (row_words, row_tags) in enumerate(zip(words, tags, strict=True), 1):
        if len(row_words) != len(row_tags):
            raise DataError(
                f"{source}: row {row} has {len(row_words)} words and {len(row_tags)} labels."
            )
        outside = [tag for tag in row_tags if tag not in index]
        if outside:
            raise DataError(
                f"{source}: column '{task.label_column}', row {row}: {show_label(outside[0])} is "
                f"not one of the labels ({show_labels(task)})."
            )
        labels = np.array([index[tag] for tag in row_tags], np.int64)
        found.append(LabelledWords(word_spans(row_words), labels))
    return found


def all_tags(rows: Sequence[Sequence[str]]) -> list[str]:
    """The labels of all rows."""
    return [tag for tags in rows for tag in tags]


def _lists(table: pa.Table, name: str, source: str, what: str) -> list[list[Any]]:
    column = table.column(name)
    refuse_nulls(column, name, source)
    if not holds_lists(table, name):
        raise DataError(
            f"{source}: the column '{name}' holds {column.type}, not lists of {what}; row 1 is "
            f"{show(column[0].as_py())}."
        )
    rows: list[list[Any]] = column.to_pylist()
    return rows
