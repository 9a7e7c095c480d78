"""SQuAD answers: whether their offsets are right, and whether a window contains each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sparsebert.diagnosis.report import Check, Finding, Problem, Severity, plural, share
from sparsebert.diagnosis.tables import GROUP, UNUSABLE_DATA, Split
from sparsebert.errors import DataError, SparsebertError
from sparsebert.extras import need_extra
from sparsebert.progress import Progress
from sparsebert.tasks.columns import show
from sparsebert.tasks.examples import Examples, selection
from sparsebert.tasks.squad import Answers, answer_fault, need_answers
from sparsebert.tasks.table import Kind, Task
from sparsebert.tasks.tokens import load_tokenizer
from sparsebert.tasks.windows import cut_windows

_MOST_ROWS = 2_000  # questions of a split that are cut into windows

WRONG_ANSWERS = Problem(
    "wrong-answers",
    Severity.ERROR,
    "correct 'text' and 'answer_start' (counted in characters of the unchanged context, from 0), "
    "or remove these rows.",
)
DOUBLE_IDS = Problem(
    "double-ids", Severity.ERROR, "give each question its own id: answers are matched by id."
)
CUT_ANSWERS = Problem(
    "cut-answers",
    Severity.WARNING,
    "such an answer can be neither learned nor given: use a larger --max-length, or remove very "
    "long answers.",
)


def check_answers(
    task: Task, splits: list[Split], folder: Path | None, max_length: int, progress: Progress
) -> Iterator[Check]:
    """The checks of each split of a question-answering task; none for other tasks."""
    if task.kind is not Kind.QUESTION:
        return
    for split in splits:
        name = f"answers of {split.name}"
        try:
            need_answers(split.table, task.label_column, split.source)
        except DataError as error:
            found = UNUSABLE_DATA.at(split.name, str(error))
            yield Check.of(GROUP, name, "not read", [found])
            continue
        values = split.table.column(task.label_column).to_pylist()
        faults: dict[int, str] = {}
        answers: dict[int, Answers] = {}
        for row, value in enumerate(values):
            context = split.columns[1][row] or ""
            if value is None:
                faults[row] = "it has no answer."
            elif fault := answer_fault(value, context, unanswerable=task.unanswerable):
                faults[row] = fault
            elif value["text"] and split.columns[0][row] is not None:
                answers[row] = Answers(tuple(value["text"]), tuple(value["answer_start"]))
        seen = f"{len(answers):,} of {plural(len(split), 'question')} have a usable answer"
        yield Check.of(GROUP, name, seen, [_wrong(split, faults), _double(split)])
        yield _windows(task, split, answers, folder, max_length, progress)


def _wrong(split: Split, faults: dict[int, str]) -> Finding | None:
    return WRONG_ANSWERS.among(
        split.name,
        faults,
        len(split),
        "questions have a missing or unusable answer.",
        lambda row: f"row {row + 1}: {faults[row]}",
    )


def _double(split: Split) -> Finding | None:
    if "id" not in split.table.column_names:
        return None
    counts = Counter(split.table.column("id").to_pylist())
    double = {name: count for name, count in counts.items() if count > 1}
    if not double:
        return None
    rows = sum(double.values())
    return DOUBLE_IDS.at(
        split.name,
        f"{share(rows, len(split))} questions share their id with another.",
        count=rows,
        total=len(split),
        examples=(f"{show(name)}: {count} questions" for name, count in double.items()),
    )


def _windows(
    task: Task,
    split: Split,
    answers: dict[int, Answers],
    folder: Path | None,
    max_length: int,
    progress: Progress,
) -> Check:
    name = f"windows of {split.name}"
    if folder is None:
        return Check.skip(GROUP, name, "no model was given, and its tokenizer is needed")
    try:
        need_extra("cutting windows", "transformers")
        tokenizer = load_tokenizer(folder)
    except SparsebertError as error:
        return Check.skip(GROUP, name, str(error))
    rows = list(answers)
    chosen = selection(len(rows), _MOST_ROWS)
    if chosen is not None:
        rows = [rows[index] for index in chosen]
    if not rows:
        return Check.skip(GROUP, name, "no question has a usable answer")
    questions, contexts = ([str(column[row]) for row in rows] for column in split.columns)
    examples = Examples(
        task,
        split.name,
        split.source,
        questions,
        contexts,
        np.zeros(0, np.int64),
        [str(row) for row in rows],
        [answers[row] for row in rows],
    )
    windows = cut_windows(tokenizer, examples, max_length, progress=progress)
    held = set(windows.question[windows.answer.any(axis=1)].tolist())
    lost = [index for index in range(len(rows)) if index not in held]
    asked = plural(len(rows), "question")
    seen = f"{plural(len(windows), 'window')} of {max_length} tokens for {asked}"
    if chosen is not None:
        seen += " chosen by a fixed rule"
    finding = None
    if lost:
        finding = CUT_ANSWERS.at(
            split.name,
            f"for {share(len(lost), len(rows))} questions, no window contains the whole first "
            "answer.",
            count=len(lost),
            total=len(rows),
            examples=(
                f"row {rows[index] + 1}: {show(answers[rows[index]].texts[0])}" for index in lost
            ),
        )
    return Check.of(GROUP, name, seen, [finding])
