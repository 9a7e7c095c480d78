"""The benchmark tasks and a user's own: their data, checked, and their texts as token ids."""

from __future__ import annotations

from sparsebert.tasks.custom import custom_task, find_task
from sparsebert.tasks.examples import Examples, load_split, validation_splits
from sparsebert.tasks.table import CUSTOM, TASK_NAMES, TASKS, Kind, Task, get_task

__all__ = [
    "CUSTOM",
    "TASKS",
    "TASK_NAMES",
    "Examples",
    "Kind",
    "Task",
    "custom_task",
    "find_task",
    "get_task",
    "load_split",
    "validation_splits",
]
