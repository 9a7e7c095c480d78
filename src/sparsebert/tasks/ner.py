"""Named entity recognition (``--task ner``): rows of words, each word with a label.

The data is CoNLL files (`sparsebert.tasks.conll`), or tables with a column ``tokens`` (or
``words``) and a column ``ner_tags`` (or ``tags``, ``labels``), both of lists. Labels are names, or
numbers whose names come from the model, the file's own schema or the option ``label_names``. If
there is no label ``O``, the labels are not entities but of another kind, such as parts of speech,
and are scored as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparsebert.errors import DataError
from sparsebert.tasks.columns import holds_lists, is_whole_number, need_columns
from sparsebert.tasks.conll import TAGS, WORDS
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.files import WORD_TYPES
from sparsebert.tasks.labels import (
    OUTSIDE,
    check_among,
    check_count,
    data_labels,
    split_tag,
)
from sparsebert.tasks.reading import RawTable
from sparsebert.tasks.table import NER, Kind, Task
from sparsebert.tasks.words import all_tags, known_names, tag_names

if TYPE_CHECKING:
    import pyarrow as pa

_WORDS = (WORDS, "words")
_TAGS = (TAGS, "tags", "labels")
NER_LENGTH = 256  # tokens; nearly every sentence fits


def ner_of_table(raw: RawTable, labels: Sequence[str] | None, options: DataOptions) -> Task:
    """The task that a table describes; ``labels`` are those of `sparsebert.tasks.own.own_task`."""
    table, source = raw.table, raw.source
    there = table.column_names
    refused = ("pair_column", "label_columns", "threshold", "regression", "positive_label")
    options.refuse(*refused, why=f"does not apply to the task {NER}")
    words = options.text_column or next((name for name in _WORDS if name in there), WORDS)
    tags = options.label_column or next((name for name in _TAGS if name in there), TAGS)
    need_columns(table, (words, tags), source)
    if table.num_rows == 0:
        raise DataError(f"{source} has no rows.")
    numbers = options.names or known_names(table, tags) or ()
    if labels is None:
        names = numbers or _label_set(table, tags, source)
    else:
        names = data_labels(labels, numbers, all_tags(tag_names(table, tags, source)))
    check_among(numbers, names, source)
    entities = OUTSIDE in names
    metrics = ("f1", "precision", "recall") if entities else ("accuracy", "f1")
    return Task(
        name=NER,
        title="NER" if entities else "words",
        kind=Kind.TOKENS,
        text_columns=(words,),
        label_column=tags,
        metrics=metrics,
        main_metric=metrics[0],
        labels=names,
        positions=labels is not None,
        numbers=numbers,
        max_length=NER_LENGTH,
        file_types=WORD_TYPES,
    )


def holds_tags(table: pa.Table, options: DataOptions) -> bool:
    """Whether the table has the task's columns: lists of words, and lists of labels."""
    return all(
        any(holds_lists(table, name) for name in ((given,) if given else known))
        for given, known in ((options.text_column, _WORDS), (options.label_column, _TAGS))
    )


def _label_set(table: pa.Table, column: str, source: str) -> tuple[str, ...]:
    """The labels that occur: O first, then grouped by entity type, with B- before I-."""
    distinct = set(all_tags(tag_names(table, column, source)))
    if distinct and all(map(is_whole_number, distinct)):
        raise DataError(
            f"{source}: the labels in '{column}' are numbers: name them with --label-names "
            "(label_names=), for example O,B-PER,I-PER."
        )
    if len(distinct) < 2:
        raise DataError(
            f"{source}: every word has the label {next(iter(distinct), 'none')!r}; a task needs at "
            "least two labels."
        )
    check_count(distinct, column, source)
    return tuple(sorted(distinct, key=_place))


def _place(label: str) -> tuple[bool, str, str]:
    prefix, kind = split_tag(label)
    return label != OUTSIDE, kind, prefix
