"""The benchmark tasks and users' own tasks: reading and checking their data, and tokenising it.

Names are imported on first use: the command line builds its options from `data_options`, and
`--help` must stay fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsebert.extras import imported_on_use

_WHERE = {
    "CUSTOM": "sparsebert.tasks.table",
    "OWN_TASKS": "sparsebert.tasks.table",
    "TASKS": "sparsebert.tasks.table",
    "TASK_NAMES": "sparsebert.tasks.table",
    "Examples": "sparsebert.tasks.examples",
    "Kind": "sparsebert.tasks.table",
    "Task": "sparsebert.tasks.table",
    "custom_task": "sparsebert.tasks.own",
    "find_task": "sparsebert.tasks.own",
    "get_task": "sparsebert.tasks.table",
    "load_split": "sparsebert.tasks.examples",
    "validation_splits": "sparsebert.tasks.examples",
}

__all__ = [
    "CUSTOM",
    "OWN_TASKS",
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

if TYPE_CHECKING:
    from sparsebert.tasks.examples import Examples, load_split, validation_splits
    from sparsebert.tasks.own import custom_task, find_task
    from sparsebert.tasks.table import (
        CUSTOM,
        OWN_TASKS,
        TASK_NAMES,
        TASKS,
        Kind,
        Task,
        get_task,
    )

__getattr__ = imported_on_use(__name__, _WHERE)
