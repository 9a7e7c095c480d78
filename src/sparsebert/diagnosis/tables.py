"""A task's files, not validated: checks list every fault, where a loader stops at the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.diagnosis.report import Check, Finding, Problem, Severity, plural
from sparsebert.errors import CheckpointError, DataError
from sparsebert.extras import need_extra
from sparsebert.tasks.columns import labelled, need_columns, texts_or_none
from sparsebert.tasks.custom import label_column
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.division import divide, read_division
from sparsebert.tasks.examples import examples_from, read_split, task_texts, validation_splits
from sparsebert.tasks.files import is_of_split, split_files, undivided_file
from sparsebert.tasks.own import find_task, task_of_table, unread_task
from sparsebert.tasks.reading import RawTable
from sparsebert.tasks.retrieval import beir_splits, is_beir
from sparsebert.tasks.table import Kind, Task, is_own

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = "data"

UNUSABLE_DATA = Problem(
    "unusable-data",
    Severity.ERROR,
    "fix what the message says; `sparsebert finetune --help` names the columns.",
)
SPLIT_MISSING = Problem(
    "split-missing",
    Severity.NOTE,
    "without a validation split, nothing can be scored: hold out some training rows for it, or "
    "pass a single file that is not named after a split, and `finetune` holds out some of its "
    "rows.",
)
LINES_IN_QUOTES = Problem(
    "lines-in-quotes",
    Severity.NOTE,
    "nothing, if the text does have several lines; if they are separate rows, close the quote "
    "before them (a quote inside a quoted text is written twice).",
)


@dataclass(frozen=True)
class Split:
    """The table of a split; ``columns`` are its text columns, with None for a missing text."""

    name: str
    source: str
    table: pa.Table = field(repr=False)
    columns: list[list[str | None]] = field(repr=False)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def texts(self, row: int) -> tuple[str | None, ...]:
        """The texts of the example at index ``row``."""
        return tuple(column[row] for column in self.columns)


@dataclass(frozen=True)
class TaskData:
    """The data that could be read; ``task`` is None where a custom task has no usable columns.

    A file without splits is the training split as a whole, so that findings count its rows as it
    does; ``held_out`` are those of its rows that are scored (`tasks.division`), if it can be
    divided.
    """

    task: Task | None
    splits: list[Split]
    check: Check
    held_out: Split | None = None


def read_data(
    name: str,
    data: str | Path | None,
    labels: Sequence[str] | None = None,
    options: DataOptions | None = None,
    model: Path | None = None,
) -> TaskData:
    """Read the splits of a task; a split that cannot be read becomes a finding.

    ``labels`` are those of a model trained on a custom task, None to take them from the data.
    ``model`` is a folder that may record how it divided the data. DataError for an unknown task or
    a missing folder.
    """
    need_extra("checking data", "pyarrow")
    own = is_own(name)
    chosen = options or DataOptions()
    task: Task | None = None if own else find_task(name, data, options=chosen)
    splits: list[Split] = []
    findings: list[Finding] = []
    unread = task or unread_task(name)
    file = undivided_file(data, unread.file_types)
    held_out = None
    for split in _splits(unread, data):
        try:
            raw = read_split(task or unread, data, split)
            table, source = raw.table, raw.source
            if task is None:
                task = task_of_table(name, _labelled(raw, unread, chosen), labels, chosen)
            need_columns(table, task.columns, source)
            if table.num_rows == 0:
                raise DataError(f"{source} has no rows.")
            columns = _texts(table, task, source)
        except DataError as error:
            findings.append(UNUSABLE_DATA.at(split, str(error)))
            continue
        findings += [LINES_IN_QUOTES.at(split, note) for note in raw.notes]
        splits.append(Split(split, source, table, columns))
        if file is not None:
            try:
                held_out = _held_out(task, file, raw, splits[-1], chosen.validation_share, model)
            except DataError as error:
                findings.append(SPLIT_MISSING.at(split, str(error)))
    where = data if data is not None else name
    if not splits and not findings:
        findings.append(UNUSABLE_DATA.at(where, "it has no file named train or validation."))
    elif file is None and all(split.name == "train" for split in splits) and not findings:
        findings.append(SPLIT_MISSING.at(where, "there is no validation split."))
    read = ", ".join(f"{split.name} {plural(len(split), 'row')}" for split in splits)
    if held_out is not None:
        read += f", of which {len(held_out):,} are held out for scoring"
    return TaskData(task, splits, Check.of(GROUP, "files", read or "none read", findings), held_out)


def _splits(task: Task, data: str | Path | None) -> list[str]:
    if data is not None and Path(data).is_file():
        split_files(Path(data), "train", task.file_types)  # DataError for an unknown file type
        named = [split for split in task.validation_splits if is_of_split(Path(data), split)]
        return named[:1] or ["train"]
    there: Any = [] if data is None else split_files(Path(data), "train", task.file_types)
    if data is not None and is_beir(Path(data)):
        there = beir_splits(Path(data), "train")
    train = ["train"] if data is None or there else []
    return [*train, *validation_splits(task, data)]


def _held_out(
    task: Task, file: Path, raw: RawTable, whole: Split, share: float, model: Path | None
) -> Split | None:
    """The rows of a file that `evaluate` scores for the model, else that `finetune` holds out.

    None if the rows cannot be used as they are, which other checks say; DataError if they are too
    few to divide.
    """
    try:
        division = None if model is None else read_division(model)
    except CheckpointError:  # only `evaluate` needs it
        division = None
    if division is None or not division.is_of(file) or division.rows != len(whole):
        try:
            examples = examples_from(task, raw, whole.name)
        except DataError:
            return None
        division = divide(examples, file, share)
    held = division.indices()
    columns = [[column[row] for row in held] for column in whole.columns]
    return Split(task.validation_splits[0], whole.source, whole.table.take(held), columns)


def _texts(table: pa.Table, task: Task, source: str) -> list[list[str | None]]:
    """The text columns; for token classification, the text that the words of each row make."""
    if task.kind is Kind.TOKENS:
        return [list(column) for column in task_texts(table, task, source)]
    names = (*task.text_columns, *task.negative_columns)
    return [texts_or_none(table, column, source) for column in names]


def _labelled(raw: RawTable, task: Task, options: DataOptions) -> RawTable:
    """The rows that have a label."""
    if task.kind in (Kind.TOKENS, Kind.RETRIEVAL) or options.flag_columns:
        return raw
    column = options.label_column or label_column(raw.table, raw.source)
    need_columns(raw.table, (column,), raw.source)
    return replace(raw, table=raw.table.filter(labelled(raw.table, column)))
