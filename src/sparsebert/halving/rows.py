"""Which rows a halving learns from, chooses between rounds on, and reports on: all are distinct.

    texts.parquet                       texts to calibrate on, and without a task to distil on
    data/{train,validation}.parquet     rows to learn from, and to choose on if there are rounds
    scored/validation.parquet           rows to report on, if the user's data has none

The selection is fixed: it depends on the texts alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparsebert.checkpoint.atomic import replaced_file
from sparsebert.checkpoint.staging import staged_folder
from sparsebert.halving.steps import Folders, data_options, is_question
from sparsebert.halving.subject import Goal, Subject
from sparsebert.halving.texts import (
    Gathered,
    check_vocabulary,
    divide_texts,
    write_labelled,
    write_texts,
)
from sparsebert.inference import load
from sparsebert.tasks.division import hold_out
from sparsebert.tasks.examples import examples_from, read_split
from sparsebert.tasks.files import split_files
from sparsebert.tasks.texts import Text, read_texts

_SCORED = "scored"
_CHOICE = 0.1  # of the training rows


@dataclass(frozen=True)
class Rows:
    """``scored`` is reported on, ``choice`` decides between rounds: data folders for a task, else
    texts. If there is no choice to make, both are the same.
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
    if folders.texts.is_file():
        return places
    if gathered.own:
        note = check_vocabulary(load(subject.checkpoint.path, threads=threads), gathered.texts)
        gathered.notes.extend([note] if note else [])
    texts = gathered.texts
    if subject.goal is not Goal.TASK:
        texts, _, report = divide_texts(gathered, choose=choose)
        if places.scored == work / _SCORED and not (work / _SCORED).exists():
            _write_scored(subject, report, work / _SCORED)
    else:
        _write_data(work, subject, gathered, places, threads)
        if not (subject.labelled and subject.texts) and folders.data != subject.data:
            texts = list(dict.fromkeys(read_texts(folders.data, subject.task, subject.columns)))
    with replaced_file(folders.texts) as unfinished:
        write_texts(unfinished, texts, questions=is_question(subject))
    return places


def place(work: Path, subject: Subject, gathered: Gathered, *, choose: bool) -> Rows:
    """Where the rows are, or will be."""
    texts = work / "texts.parquet"
    scored = work / _SCORED
    if subject.goal is not Goal.TASK:
        _, choice, report = divide_texts(gathered, choose=choose)
        held: Path | list[Text] = report
        if subject.goal is Goal.LABELS and subject.labelled:
            held = subject.data if _has_validation(subject) and subject.data else scored
        return Rows(Folders(work, texts, work / "data"), held, choice)
    if subject.labelled and _has_validation(subject):
        assert subject.data is not None
        scored = subject.data
    data = work / "data" if choose else scored
    return Rows(Folders(work, texts, data), scored, data)


def _write_scored(subject: Subject, held: list[Text], out: Path) -> None:
    """The labelled rows to report on, as the data folder ``out``.

    These are the rows of the held-out texts, or all rows if separate texts are learned from.
    """
    import pyarrow as pa
    import pyarrow.parquet

    assert subject.task is not None
    raw = read_split(subject.task, subject.data, "train")
    texts = examples_from(subject.task, raw, "train").texts
    among = set(held)
    table = raw.table
    if not subject.texts:
        table = table.filter(pa.array([text.strip() in among for text in texts]))
    with staged_folder(out, force=False) as staging:
        pa.parquet.write_table(table, staging / "validation.parquet", compression="zstd")


def _write_data(
    work: Path, subject: Subject, gathered: Gathered, places: Rows, threads: int | None
) -> None:
    """Write the data folders that do not exist yet, each whole or not at all."""
    scored, data = places.scored, places.folders.data
    assert isinstance(scored, Path)
    if subject.labelled:
        assert subject.task is not None
        source = subject.data
        for folder, share in ((scored, subject.columns.validation_share), (data, _CHOICE)):
            if folder.parent == work and not folder.exists():
                hold_out(subject.task.name, source, folder, share=share, options=subject.columns)
            source = folder
        return
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


def _has_validation(subject: Subject) -> bool:
    """Whether the data has a validation split; if not, every model has the same rows held out."""
    assert subject.data is not None
    if subject.data.is_file() or subject.task is None:
        return False
    task = subject.task
    return bool(split_files(subject.data, task.validation_splits[0], task.file_types))
