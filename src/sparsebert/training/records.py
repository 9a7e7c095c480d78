"""What a fine-tuned model records of its training, to be compared with a run that is to match it.

A folder of seeds, or a teacher kept from an earlier run, is used again only if it was trained with
the same arguments and inputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.checkpoint.json_files import read_object
from sparsebert.checkpoint.model_files import TRAINING_NAME
from sparsebert.errors import printable
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.table import Task
from sparsebert.training.options import FinetuneOptions
from sparsebert.training.recipe import source_names

if TYPE_CHECKING:
    from sparsebert.training.defaults import RunOptions


def recorded_arguments(
    task: Task,
    data: str | Path | None,
    columns: DataOptions,
    options: RunOptions,
    metric: str | None = None,
) -> dict[str, Any]:
    """A run's arguments as its model records them: without local paths. ``metric`` is its name."""
    return {
        "task": task.name,
        "data": task.hub_id if data is None else printable(Path(data).name),
        **columns.given(),
        **({"metric": metric} if metric else {}),
        **options.as_dict(),
        **source_names(options),
    }


def how_trained(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The arguments that a fine-tuned model was trained with, and the fingerprints of its inputs.

    Options that were added since then have their defaults. Raises CheckpointError for a missing or
    unreadable training.json, and KeyError for one that records no arguments.
    """
    record = read_object(folder / TRAINING_NAME)
    return {**FinetuneOptions().as_dict(), **record["arguments"]}, record.get("fingerprints", {})
