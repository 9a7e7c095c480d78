"""Which rows a model is scored on, read with which options, and up to which length.

Evaluation matches serving: texts are truncated to the same length as in inference, and a model that
was fine-tuned here is scored on the columns and the held-out examples of its training.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sparsebert.checkpoint import Checkpoint, EncoderConfig
from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.model_files import TRAINING_NAME
from sparsebert.checkpoint.score_function import read_score_prompt
from sparsebert.errors import DataError
from sparsebert.inference.answering import window_length
from sparsebert.inference.tokenizing import folder_tokenizer
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.division import file_sha256, read_division
from sparsebert.tasks.examples import Examples, load_split, validation_splits
from sparsebert.tasks.files import file_type, no_split, split_files, undivided_file
from sparsebert.tasks.table import Kind, Task, task_name


def trained_options(folder: Path, task: str, given: DataOptions) -> DataOptions:
    """``given``, with unset options filled in from the folder's training record.

    A record of another task is ignored, and so are recorded options that a given one replaces.
    Raises CheckpointError for a damaged training.json.
    """
    path = folder / TRAINING_NAME
    arguments: Any = read_object(path).get("arguments") if path.is_file() else None
    if not isinstance(arguments, dict) or arguments.get("task") != task_name(task):
        return given
    names = ["threshold"]
    if given.text_column is None:
        names += ["text_column", "pair_column"]
    if given.label_column is None and given.label_columns is None:
        names += ["label_column", "label_columns"]
    if not given.regression:
        names += ["label_names", "positive_label"]
    known = {
        name: arguments[name]
        for name in names
        if getattr(given, name) is None and isinstance(arguments.get(name), str | int | float)
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

    Of a single file that is not named after a split, all examples are scored, or only the held-out
    ones if the model was trained on the others. If it was trained on all rows of a file, a note
    says so. The prompt of a CrossEncoder is put before each text. Raises DataError and
    CheckpointError.
    """
    prompt = "" if task.embeds else read_score_prompt(folder)
    found = _stored_examples(folder, task, data, split, max_rows)
    if not prompt:
        return found
    return [replace(each, texts=[prompt + text for text in each.texts]) for each in found]


def _stored_examples(
    folder: Path, task: Task, data: str | Path | None, split: str | None, max_rows: int | None
) -> list[Examples]:
    file = undivided_file(data, task.file_types)
    if file is None:
        splits = validation_splits(task, data) if split is None else (split,)
        if not splits:
            assert data is not None
            raise no_split(Path(data), task.validation_splits[0], task.file_types)
        return [
            _told(load_split(task, data, each, max_rows=max_rows), folder, data) for each in splits
        ]
    name = split or task.validation_splits[0]
    division = read_division(folder)
    whole = load_split(task, file, name)
    if division is None:
        found = _told(whole, folder, file)
    elif division.is_of(file):
        train, held = division.parts(whole, name)
        found = train if split == "train" else held
        which = "that the model was trained on" if split == "train" else "held out of its training"
        found = _noted(found, f"{file.name}: scored on the {len(found):,} rows {which}.")
    elif division.file == file.name:
        raise DataError(
            f"{file} is not the {file.name} that the model was trained on, so it is unknown which "
            "of its rows the model has seen: put unseen rows into a file named "
            f"{name}{file_type(file, task.file_types)}."
        )
    else:
        found = _noted(
            whole,
            f"{file.name}: all rows were scored, without checking whether some are also in "
            f"{division.file}, on which the model was trained.",
        )
    return [found.selected(max_rows)]


def _told(examples: Examples, folder: Path, data: str | Path | None) -> Examples:
    """The examples, with a note if a file of theirs was wholly used to train the model."""
    path = folder / TRAINING_NAME
    seen: Any = read_object(path).get("training_files") if path.is_file() else None
    if not isinstance(seen, dict) or data is None or examples.split == "train":
        return examples
    for file in split_files(Path(data), examples.split, examples.task.file_types):
        if file_sha256(file) in seen.values():
            note = f"{file.name}: the model was trained on this file, which flatters the score."
            examples = _noted(examples, note)
    return examples


def _noted(examples: Examples, note: str) -> Examples:
    return replace(examples, notes=(*examples.notes, note))


def text_limit(checkpoint: Checkpoint) -> int:
    """The length in tokens to which `sparsebert.load` would truncate texts for this model."""
    positions = checkpoint.config.max_length
    tokenizer = folder_tokenizer(checkpoint.path, positions=positions)
    return tokenizer.max_length if tokenizer else positions


def example_length(task: Task, config: EncoderConfig, limit: int) -> int:
    """The length in tokens of a task's examples, for a model with ``limit`` tokens per text."""
    return window_length(config, limit) if task.kind is Kind.QUESTION else limit


def check_positions(max_length: int | None, config: EncoderConfig, model: str) -> None:
    """DataError if ``max_length`` exceeds the model's positions."""
    if max_length is not None and max_length > config.max_length:
        raise DataError(
            f"max_length {max_length} is more than the {config.max_length} tokens for which "
            f"{model} has positions: use at most {config.max_length}."
        )
