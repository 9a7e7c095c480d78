"""What a fine-tuned folder knows of its training data, so that it is scored on the like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.auxiliary_files import TRAINING_NAME
from sparsebert.checkpoint.json_files import read_object
from sparsebert.errors import DataError
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.division import read_division
from sparsebert.tasks.examples import Examples, load_split, selection, validation_splits
from sparsebert.tasks.files import file_type, no_split, undivided_file
from sparsebert.tasks.table import Task


def trained_options(folder: Path, task: str, given: DataOptions) -> DataOptions:
    """``given``, with the columns and the positive label of the training where it leaves them open.

    A training on another task says nothing. Raises CheckpointError for a damaged training.json.
    """
    path = folder / TRAINING_NAME
    arguments: Any = read_object(path).get("arguments") if path.is_file() else None
    if not isinstance(arguments, dict) or arguments.get("task") != task.lower():
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


def read_scored(
    folder: Path,
    task: Task,
    data: str | Path | None,
    split: str | None,
    max_rows: int | None = None,
) -> list[Examples]:
    """The rows to score the model in ``folder`` on: the task's validation splits, or ``split``.

    Of one file that is named after no split all rows are scored, save where the model was trained
    on the others: then those that were held out. Raises DataError and CheckpointError.
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
