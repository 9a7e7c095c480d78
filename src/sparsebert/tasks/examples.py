"""A task's split as checked examples: texts or pairs, labels, and where they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from sparsebert.errors import DataError, reading
from sparsebert.tasks.columns import (
    are_positions,
    class_column,
    label_names,
    need_columns,
    number_column,
    show_labels,
    text_column,
)
from sparsebert.tasks.files import file_type, is_of_split, no_split, split_files
from sparsebert.tasks.label_sets import label_sets
from sparsebert.tasks.reading import RawTable, fetch_split, read_table
from sparsebert.tasks.retrieval import beir_splits, beir_table, is_beir
from sparsebert.tasks.squad import Answers, answers_column
from sparsebert.tasks.table import Kind, Task, is_own
from sparsebert.tasks.words import (
    LabelledWords,
    all_tags,
    joined,
    labelled_words,
    tag_names,
    words_column,
)

if TYPE_CHECKING:
    import pyarrow as pa

_Item = TypeVar("_Item")

# Fixed, so that `max_rows` selects the same rows for every seed, model and machine.
_SELECTION_SEED = 20_240_501


@dataclass(frozen=True)
class Examples:
    """One split.

    ``texts`` holds the first text column and ``pairs`` the second, None for single texts (SQuAD:
    questions and contexts; retrieval: queries and documents). ``labels`` is ``[rows]``: int64
    indices into ``task.labels``, or float32 targets of a regression, scores of pairs or relevances
    of documents. For several labels per row, it is float32 ``[rows, labels]`` of zeros and ones. It
    is empty for SQuAD, which has ``answers``, and for named entities, which have ``words``. ``ids``
    name the rows; ``notes`` are sentences on how they were read. ``negatives`` are each row's
    irrelevant documents, and ``corpus`` has further documents to search; ``themselves`` maps each
    query that is itself a document to that document.
    """

    task: Task
    split: str
    source: str
    texts: list[str]
    pairs: list[str] | None
    labels: npt.NDArray[np.int64] | npt.NDArray[np.float32]
    ids: list[str]
    answers: list[Answers] = field(default_factory=list)
    words: list[LabelledWords] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    negatives: list[tuple[str, ...]] = field(default_factory=list)
    corpus: tuple[str, ...] = ()
    themselves: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    def together(self) -> list[tuple[str, ...]]:
        """A key for each row; rows with the same key must not be divided between splits.

        The key is the texts. For retrieval it is the query, as all its documents are relevant; for
        question answering it is the context, which a model trained on it would already know.
        """
        if self.task.kind is Kind.QUESTION and self.pairs is not None:
            return [(context,) for context in self.pairs]
        if self.pairs is None or self.task.kind is Kind.RETRIEVAL:
            return [(text,) for text in self.texts]
        return list(zip(self.texts, self.pairs, strict=True))

    def selected(self, max_rows: int | None) -> Examples:
        """The rows that `selected_rows` chooses for ``max_rows``; None keeps all."""
        rows = selected_rows(self, max_rows)
        return self if rows is None else self.take(rows, self.split)

    def take(self, rows: npt.NDArray[np.int64], split: str) -> Examples:
        """The given rows, in that order, as a split named ``split``."""
        return replace(
            self,
            split=split,
            texts=_take(self.texts, rows),
            pairs=None if self.pairs is None else _take(self.pairs, rows),
            labels=self.labels[rows] if len(self.labels) else self.labels,
            ids=_take(self.ids, rows),
            answers=_take(self.answers, rows) if self.answers else [],
            negatives=_take(self.negatives, rows) if self.negatives else [],
            words=_take(self.words, rows) if self.words else [],
        )


def load_split(
    task: Task, data: str | Path | None, split: str, *, max_rows: int | None = None
) -> Examples:
    """Read one split of ``task`` from ``data`` (see `sparsebert.tasks.files`) or from the hub.

    The whole split is checked; then ``max_rows`` rows are kept in their order, a fixed selection
    (`selected_rows`). Raises DataError.
    """
    raw = read_split(task, data, split)
    with reading(raw.source, DataError):  # values that Python cannot hold, such as the year 10000
        return examples_from(task, raw, split, max_rows=max_rows)


def read_split(task: Task, data: str | Path | None, split: str) -> RawTable:
    """The raw table of one split, with GLUE's own column names changed to the task's."""
    if data is None:
        return RawTable(fetch_split(task, split), f"{task.hub_id} ({split})")
    folder = Path(data)
    if is_beir(folder):
        return beir_table(folder, split)
    files = split_files(folder, split, task.file_types)
    if not files:
        raise no_split(folder, split, task.file_types)
    source = folder / f"{split}-*{file_type(files[0], task.file_types)}"
    found = _concatenated([read_table(path, task) for path in files], source)
    there = found.table.column_names
    glue = {glue_name: name for name, glue_name in task.glue_columns if glue_name in there}
    if set(task.columns) <= set(there) or not set(task.columns) <= {*there, *glue.values()}:
        return found
    renamed = [glue.get(name, name) if name not in task.columns else name for name in there]
    return replace(found, table=found.table.rename_columns(renamed))


def validation_splits(task: Task, data: str | Path | None) -> tuple[str, ...]:
    """The task's validation splits for which ``data`` has files.

    A single file is the split that it is named after, else the first. Raises DataError for a folder
    that does not exist or is ambiguous.
    """
    if data is None:
        return task.validation_splits
    path = Path(data)
    if path.is_file():
        named = [split for split in task.validation_splits if is_of_split(path, split)]
        return (named[0] if named else task.validation_splits[0],)
    if is_beir(path):
        return tuple(split for split in task.validation_splits if beir_splits(path, split))
    return tuple(
        split for split in task.validation_splits if split_files(path, split, task.file_types)
    )


def examples_from(
    task: Task, raw: RawTable, split: str, *, max_rows: int | None = None
) -> Examples:
    """Check a table and convert it to examples. Raises DataError."""
    table, source = raw.table, raw.source
    need_columns(table, task.columns, source)
    if table.num_rows == 0:
        raise DataError(f"{source} has no rows.")
    columns = task_texts(table, task, source)
    found = _TARGETS[task.kind](table, task, columns, source)
    others = [text_column(table, name, source) for name in task.negative_columns]
    examples = Examples(
        task,
        split,
        source,
        columns[0],
        columns[1] if len(columns) == 2 else None,
        found.labels,
        _ids(table),
        found.answers,
        found.words,
        (*raw.notes, *found.notes),
        negatives=list(zip(*others, strict=True)),
        corpus=raw.corpus,
        themselves=raw.themselves,
    )
    return examples.selected(max_rows)


def task_texts(table: pa.Table, task: Task, source: str) -> list[list[str]]:
    """The texts of all rows, column by column; a row of words is one text. Raises DataError."""
    if task.kind is Kind.TOKENS:
        return [[joined(words) for words in words_column(table, task.text_columns[0], source)]]
    return [text_column(table, name, source) for name in task.text_columns]


@dataclass(frozen=True)
class _Targets:
    """The expected answers: the fields of `Examples` that a kind of task fills."""

    labels: npt.NDArray[np.int64] | npt.NDArray[np.float32] = field(
        default_factory=lambda: np.zeros(0, np.int64)
    )
    answers: list[Answers] = field(default_factory=list)
    words: list[LabelledWords] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def _classes(table: pa.Table, task: Task, texts: list[list[str]], source: str) -> _Targets:
    labels = class_column(table, task, source)
    names = label_names(table, task.label_column, source)
    return _Targets(labels, notes=_position_notes(names, task, source))


def _label_sets(table: pa.Table, task: Task, texts: list[list[str]], source: str) -> _Targets:
    labels = label_sets(table, task, source)
    if task.flag_columns:
        return _Targets(labels)
    names = all_tags(tag_names(table, task.label_column, source))
    return _Targets(labels, notes=_position_notes(names, task, source))


def _position_notes(names: Sequence[str], task: Task, source: str) -> tuple[str, ...]:
    """A note if only their order says which of a model's labels the numbers in the data mean."""
    # A benchmark's numbers have a known meaning; those in a user's file might mean something else.
    if not is_own(task.name) or task.numbers or not are_positions(names, task):
        return ()
    note = (
        f"{source}: the labels are integers and the model's are not, so they were taken as indices "
        f"of its classes ({show_labels(task)})"
    )
    if task.kind is Kind.CLASSIFICATION:
        return (f"{note}.",)
    return (f"{note}; if they mean others, name them with --label-names (label_names=).",)


def _numbers(table: pa.Table, task: Task, texts: list[list[str]], source: str) -> _Targets:
    return _Targets(number_column(table, task.label_column, task.label_range, source))


def _relevances(table: pa.Table, task: Task, texts: list[list[str]], source: str) -> _Targets:
    if not task.label_column:
        return _Targets(np.ones(table.num_rows, np.float32))
    values = number_column(table, task.label_column, None, source)
    for row in np.flatnonzero(values <= 0)[:1]:
        raise DataError(
            f"{source}: column '{task.label_column}', row {row + 1}: {values[row]:g} is not above "
            "0: leave out rows whose document does not answer the query."
        )
    return _Targets(values)


def _spans(table: pa.Table, task: Task, texts: list[list[str]], source: str) -> _Targets:
    answers = answers_column(
        table, task.label_column, texts[1], source, unanswerable=task.unanswerable
    )
    _refuse_duplicates(_ids(table), source)
    return _Targets(answers=answers)


def _words(table: pa.Table, task: Task, texts: list[list[str]], source: str) -> _Targets:
    words = words_column(table, task.text_columns[0], source)
    tags = tag_names(table, task.label_column, source)
    notes = _position_notes(all_tags(tags), task, source)
    return _Targets(words=labelled_words(words, tags, task, source), notes=notes)


_TARGETS = {
    Kind.CLASSIFICATION: _classes,
    Kind.LABEL_SETS: _label_sets,
    Kind.REGRESSION: _numbers,
    Kind.TOKENS: _words,
    Kind.QUESTION: _spans,
    Kind.PAIRS: _numbers,
    Kind.RETRIEVAL: _relevances,
}


def selection(rows: int, max_rows: int | None) -> npt.NDArray[np.int64] | None:
    """Indices of the rows that ``max_rows`` keeps, ascending; None if it keeps all of them.

    The rows are first shuffled with a fixed seed, so that a file sorted by label or by source is
    sampled evenly. The choice depends only on the number of rows.
    """
    if max_rows is None or max_rows >= rows:
        return None
    if max_rows < 1:
        raise DataError(f"max_rows must be at least 1, not {max_rows}.")
    return np.sort(_order(rows)[:max_rows])


def selected_rows(examples: Examples, max_rows: int | None) -> npt.NDArray[np.int64] | None:
    """`selection` of a split's rows; for retrieval, whole queries are selected in the same way.

    If only some of a query's rows were kept, its other documents would count as irrelevant.
    """
    if examples.task.kind is not Kind.RETRIEVAL or selection(len(examples), max_rows) is None:
        return selection(len(examples), max_rows)
    assert max_rows is not None
    queries: dict[tuple[str, ...], list[int]] = {}
    for row, query in enumerate(examples.together()):
        queries.setdefault(query, []).append(row)
    rows = list(queries.values())
    kept: list[int] = []
    for index in _order(len(rows)):
        if kept and len(kept) + len(rows[index]) > max_rows:
            break
        kept += rows[index]
    return np.sort(np.array(kept, np.int64))


def _order(count: int) -> npt.NDArray[np.int64]:
    # The legacy generator: numpy promises that its streams never change.
    return np.random.RandomState(_SELECTION_SEED).permutation(count).astype(np.int64)


def _concatenated(found: list[RawTable], source: Path) -> RawTable:
    import pyarrow as pa

    if len(found) == 1:
        return found[0]
    try:
        table = pa.concat_tables([each.table for each in found])
    except pa.ArrowException as fault:
        raise DataError(
            f"{found[0].source} and the other parts of the split have different columns: {fault}"
        ) from fault
    return RawTable(table, str(source), tuple(note for each in found for note in each.notes))


def _ids(table: pa.Table) -> list[str]:
    for name in ("id", "idx"):
        if name in table.column_names:
            return [str(value) for value in table.column(name).to_pylist()]
    return [str(row) for row in range(table.num_rows)]


def _refuse_duplicates(ids: Sequence[str], source: str) -> None:
    seen: dict[str, int] = {}
    for row, name in enumerate(ids):
        if name in seen:
            raise DataError(
                f"{source}: column 'id', row {row + 1}: '{name}' is also the id of row "
                f"{seen[name] + 1}; each question needs its own id."
            )
        seen[name] = row


def _take(items: list[_Item], rows: npt.NDArray[np.int64]) -> list[_Item]:
    return [items[row] for row in rows]
