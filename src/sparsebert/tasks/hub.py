"""Fetch a task's split from the Hugging Face hub, when the user gave no data of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsebert.errors import DataError
from sparsebert.extras import need_extra
from sparsebert.tasks.table import Task

if TYPE_CHECKING:
    import pyarrow as pa


def fetch_split(task: Task, split: str) -> pa.Table:
    """One split through the ``datasets`` library, which keeps it in its cache.

    Raises DataError if the task has no home on the hub, or if it cannot be fetched.
    """
    if task.hub_id is None:
        raise DataError(
            f"the task {task.name} is not on the hub: give its data as a folder or file."
        )
    need_extra("fetching data from the hub", "datasets")
    import datasets
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        dataset = datasets.load_dataset(task.hub_id, task.hub_config, split=split)
    except Exception as fault:  # offline, gated, renamed: the library raises a dozen kinds
        raise DataError(
            f"the split {split} of {task.name} could not be fetched from the hub "
            f"({task.hub_id}): {_first_line(fault)} Give the data as a folder instead."
        ) from fault
    return dataset.with_format("arrow")[:]


def _first_line(fault: Exception) -> str:
    text = str(fault).strip()
    line = text.splitlines()[0] if text else type(fault).__name__
    return line if line.endswith(".") else line + "."
