"""Match a task's labels with those a model's head was trained on."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sparsebert.errors import DataError
from sparsebert.tasks.table import Task


def are_unnamed(labels: Sequence[str]) -> bool:
    """True for ``LABEL_0``, ``LABEL_1``, ...: what transformers calls classes nobody named."""
    return all(re.fullmatch(r"LABEL_\d+", label) for label in labels)


def label_order(
    task: Task, model_labels: Sequence[str]
) -> tuple[npt.NDArray[np.int64], str | None]:
    """Where each label of a classification stands in the model's head.

    Returns ``order`` with ``order[task label] = model label`` and a note for the user, if the match
    is not by name. Names are compared without regard to case, ``-`` and ``_``; a model whose names
    are other ones is matched by position. Raises DataError if the counts differ.
    """
    if len(model_labels) != len(task.labels):
        raise DataError(
            f"the task {task.name} has {len(task.labels)} labels ({', '.join(task.labels)}) and "
            f"the model's head has {len(model_labels)} ({', '.join(model_labels)}): fine-tune it "
            "on the task first."
        )
    for spelling in (str, _plain):
        places = {spelling(name): place for place, name in enumerate(model_labels)}
        names = [spelling(name) for name in task.labels]
        if len(places) == len(names) and set(names) == set(places):
            return np.array([places[name] for name in names], np.int64), None
    note = None
    if not are_unnamed(model_labels):
        note = (
            f"the model's labels ({', '.join(model_labels)}) are not named like those of "
            f"{task.name} ({', '.join(task.labels)}): they were matched by their position."
        )
    return np.arange(len(task.labels)), note


def same_labels(task: Task, model_labels: Sequence[str]) -> bool:
    """True if a head with these labels already answers this task: names match, or have no names."""
    if len(model_labels) != len(task.labels):
        return False
    same = {_plain(name) for name in task.labels} == {_plain(name) for name in model_labels}
    return same or are_unnamed(model_labels)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
