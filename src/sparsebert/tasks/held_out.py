"""Hold some training rows out, to choose learning rates on: never on the validation split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsebert.checkpoint.json_files import write_json
from sparsebert.checkpoint.staging import staged_folder
from sparsebert.errors import DataError
from sparsebert.extras import need_extra
from sparsebert.tasks.custom import find_task
from sparsebert.tasks.examples import examples_from, read_split, selection

_SEED = 20_240_502  # not that of `selection`: this one deals out the rows that it kept


def hold_out(
    task: str,
    data: str | Path | None,
    out: str | Path,
    *,
    share: float = 0.2,
    max_rows: int | None = None,
) -> dict[str, int]:
    """Write the data folder ``out``, made of the train split of ``data`` alone.

    Of the training rows (the ones that ``max_rows`` selects, as `finetune` does) the nearest whole
    number to ``share`` becomes the validation split, at least one, and the others train: a fixed
    choice that depends on nothing but the number of rows, each part in the order of the file.
    Columns stay as they are. The validation split of ``data`` is not read.

    Returns the rows of each split. Raises DataError, and OutputError if ``out`` cannot be written.
    """
    need_extra("holding rows out", "pyarrow")
    import pyarrow.parquet

    if not 0 < share < 1:
        raise DataError(f"share must be between 0 and 1, not {share}.")
    chosen = find_task(task, data)
    raw = read_split(chosen, data, "train")
    examples_from(chosen, raw, "train")  # a bad row shows here, under the file's own name
    table = raw.table
    kept = selection(table.num_rows, max_rows)
    if kept is not None:
        table = table.take(kept)
    rows: int = table.num_rows
    if rows < 2:
        raise DataError(f"{raw.source} has {rows} row: to hold some out it needs two at least.")
    held = min(max(round(rows * share), 1), rows - 1)
    # The legacy generator: numpy promises that its streams never change.
    order = np.random.RandomState(_SEED).permutation(rows)
    parts = {"train": np.sort(order[held:]), chosen.validation_splits[0]: np.sort(order[:held])}
    with staged_folder(out, force=False) as staging:
        for split, indices in parts.items():
            pyarrow.parquet.write_table(
                table.take(indices), staging / f"{split}.parquet", compression="zstd"
            )
        counts = {split: len(indices) for split, indices in parts.items()}
        write_json(staging / "held-out.json", {"task": chosen.name, "share": share, "rows": counts})
    return counts
