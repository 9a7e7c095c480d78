"""Which rows a halving learns from, chooses between rounds on, and reports on: all are distinct.

    texts.parquet                       texts to calibrate on, and without a task to distil on
    data/{train,validation}.parquet     rows to learn from, and to choose on if there are rounds
    scored/validation.parquet           rows to report on, if the user's data has none

The selection is fixed: it depends on the texts alone, unless the dense model's own training has
already divided them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint.atomic import replaced_file
from sparsebert.checkpoint.staging import staged_folder
from sparsebert.errors import DataError
from sparsebert.halving.steps import Folders, data_options, is_question
from sparsebert.halving.subject import Goal, Subject
from sparsebert.halving.texts import (
    Gathered,
    check_vocabulary,
    divide_texts,
    with_every_class,
    write_labelled,
    write_texts,
)
from sparsebert.inference import load
from sparsebert.tasks.columns import class_column
from sparsebert.tasks.division import Division, held_rows
from sparsebert.tasks.examples import (
    Examples,
    examples_from,
    load_split,
    read_split,
    validation_splits,
)
from sparsebert.tasks.files import undivided_file
from sparsebert.tasks.reading import RawTable
from sparsebert.tasks.table import Task
from sparsebert.tasks.texts import Text, read_texts, texts_of

if TYPE_CHECKING:
    import pyarrow as pa

_SCORED = "scored"
_CHOICE = 0.1  # of the training rows


@dataclass(frozen=True)
class Rows:
    """``scored`` is reported on, ``choice`` decides between rounds (unused if there is one only):
    data folders with labels, else texts.
    """

    folders: Folders
    scored: Path | list[Text]
    choice: Path | list[Text]


def prepare(
    work: Path, subject: Subject, gathered: Gathered, *, choose: bool, threads: int | None
) -> Rows:
    """Write the rows into the work folder, once; the next call completes an interrupted one."""
    places = place(work, subject, gathered, choose=choose)
    folders = places.folders
    gathered.notes.extend(_notes(subject))
    if folders.texts.is_file():
        return places
    if gathered.own:
        note = check_vocabulary(load(subject.checkpoint.path, threads=threads), gathered.texts)
        gathered.notes.extend([note] if note else [])
    if subject.labelled:
        _write_rows(work, subject, places, choose=choose)
    elif subject.goal is Goal.TASK:
        _write_answers(subject, gathered, places, threads)
    texts = gathered.texts
    if subject.goal is not Goal.TASK:
        texts, _, _ = _divide(subject, gathered, choose=choose)
    elif subject.labelled and subject.texts:
        texts = _without(texts, _held(subject, places))
    elif folders.data != subject.data:
        texts = list(dict.fromkeys(read_texts(folders.data, subject.task, subject.columns)))
    with replaced_file(folders.texts) as unfinished:
        write_texts(unfinished, texts, questions=is_question(subject))
    return places


def place(work: Path, subject: Subject, gathered: Gathered, *, choose: bool) -> Rows:
    """Where the rows are, or will be."""
    folders = Folders(work, work / "texts.parquet", work / "data")
    scored = work / _SCORED
    if subject.labelled and subject.validation_splits:
        assert subject.data is not None
        scored = subject.data
    if subject.goal is not Goal.TASK:
        _, choice, report = _divide(subject, gathered, choose=choose)
        return Rows(folders, scored if subject.labelled else report, choice)
    if not choose and not (subject.other_classes and scored == subject.data):
        folders = replace(folders, data=scored)
    return Rows(folders, scored, folders.data)


def _divide(
    subject: Subject, gathered: Gathered, *, choose: bool
) -> tuple[list[Text], list[Text], list[Text]]:
    """Texts to learn from, to choose on, and to report on unless there are labels for that.

    All labels are for the report: between rounds it is chosen by how far the models agree.
    """
    if not subject.labelled:
        return divide_texts(gathered, choose=choose)
    assert subject.task is not None
    held = [load_split(subject.task, subject.data, split) for split in subject.validation_splits]
    if not held:
        whole = load_split(subject.task, subject.data, "train")
        held = [whole.take(_scored_rows(subject, whole), "validation")]
    left = _without(gathered.texts, held)
    return divide_texts(replace(gathered, texts=left), choose=False) if choose else (left, [], [])


def _scored_rows(subject: Subject, whole: Examples) -> npt.NDArray[np.int64]:
    """Which training rows are reported on, if the data has no others: indices."""
    rows = np.arange(len(whole))
    if subject.division is not None:
        return subject.division.indices()
    if subject.texts and subject.goal is not Goal.TASK:  # no row is learned from
        return rows
    return held_rows(whole, rows, subject.columns.validation_share)


def division_of(subject: Subject) -> Division | None:
    """How a single file of labelled rows is split, so that `evaluate` scores the same rows."""
    if subject.division is not None or not subject.labelled or subject.validation_splits:
        return subject.division
    assert subject.task is not None
    file = undivided_file(subject.data, subject.task.file_types)
    if file is None:
        return None
    whole = load_split(subject.task, file, "train")
    held = _scored_rows(subject, whole)
    if len(held) == len(whole):  # none was learned from
        return None
    return Division.of(file, len(whole), subject.columns.validation_share, held)


def _notes(subject: Subject) -> list[str]:
    """A note on whether the dense model was trained on the rows to report on."""
    if not (subject.labelled and subject.taught) or subject.validation_splits:
        return []
    assert subject.data is not None
    if subject.division is not None:
        count = len(subject.division.validation)
        return [
            f"{subject.data.name}: scored on the {count:,} rows held out of the dense model's "
            "training."
        ]
    return [
        f"{subject.title} may have been trained on the scored rows, which are from "
        f"{subject.data.name}: its score would then be too high. Pass a folder with a validation "
        "file of rows that it has not seen."
    ]


def _write_rows(work: Path, subject: Subject, places: Rows, *, choose: bool) -> None:
    """Write the labelled data folders that do not exist yet, each whole or not at all."""
    import pyarrow.parquet

    task = subject.task
    assert task is not None
    split = task.validation_splits[0]
    raw = read_split(task, subject.data, "train")
    whole = examples_from(task, raw, "train")  # errors about a row name the original file
    train = np.arange(len(whole))
    parts: dict[Path, dict[str, npt.NDArray[np.int64]]] = {}
    if places.scored == work / _SCORED:
        scored = _scored_rows(subject, whole)
        train = np.setdiff1d(train, scored)
        parts[work / _SCORED] = {split: scored}
    data = places.folders.data
    if subject.goal is Goal.TASK and data.parent == work:
        rows = parts.setdefault(data, {})
        if choose:
            rows[split] = held_rows(whole, train, _CHOICE)
            train = np.setdiff1d(train, rows[split])
        rows["train"] = train
    for folder, splits in parts.items():
        if folder.exists():
            continue
        with staged_folder(folder, force=False) as staging:
            for name, chosen in splits.items():
                part = replace(raw, table=raw.table.take(chosen))
                table = part.table
                if name == "train" and subject.other_classes:
                    table = _with_model_classes(part, task)
                pyarrow.parquet.write_table(table, staging / f"{name}.parquet", compression="zstd")


def _with_model_classes(rows: RawTable, task: Task) -> pa.Table:
    """Training rows with each of the task's classes by its name, as a student's head gets those.

    A class without rows is given to any of them: distillation does not read labels.
    """
    import pyarrow as pa

    labels = class_column(rows.table, task, rows.source)
    labels = with_every_class(labels, np.zeros((len(labels), len(task.labels))))
    names = pa.array([task.labels[label] for label in labels])
    place = rows.table.column_names.index(task.label_column)
    return rows.table.set_column(place, task.label_column, names)


def _write_answers(subject: Subject, gathered: Gathered, places: Rows, threads: int | None) -> None:
    """Write data folders with the model's own answers as labels, like `_write_rows`."""
    scored, data = places.scored, places.folders.data
    assert isinstance(scored, Path)
    learn, choice, report = divide_texts(gathered, choose=data != scored)
    model = load(subject.checkpoint.path, threads=threads)
    parts = {scored: {"train": learn, "validation": report}}
    if data != scored:
        parts = {scored: {"validation": report}, data: {"train": learn, "validation": choice}}
    for folder, texts in parts.items():
        if not folder.exists():
            with staged_folder(folder, force=False) as staging:
                threshold = data_options(subject).threshold
                write_labelled(staging, model, texts, null_threshold=threshold)


def _held(subject: Subject, places: Rows) -> list[Examples]:
    """The rows of a task to report and to choose on, once they are written."""
    task, scored = subject.task, places.scored
    assert task is not None
    assert isinstance(scored, Path)
    return [
        load_split(task, folder, split)
        for folder in dict.fromkeys((scored, places.folders.data))
        for split in validation_splits(task, folder)
    ]


def _without(texts: Iterable[Text], held: Iterable[Examples]) -> list[Text]:
    """The texts that are not those of a row in ``held``. DataError if none are left."""
    left_out = {text for each in held for text in texts_of(each)}
    left = [text for text in texts if text not in left_out]
    if not left:
        raise DataError("every text is among the rows used for scoring: use other texts.")
    return left
