"""A task's split as a table: from a file (Parquet, CSV, TSV, JSON, gzipped) or from the hub."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparsebert.errors import DataError
from sparsebert.extras import need_extra
from sparsebert.tasks.delimited import parse_delimited
from sparsebert.tasks.files import GZIP, file_type
from sparsebert.tasks.json_rows import parse_rows, table_of_rows
from sparsebert.tasks.table import Task

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class RawTable:
    """A table as its file has it, nothing checked: what is in a CSV or TSV file is text.

    ``source`` is what messages call it; ``notes`` are sentences on how it was read.
    """

    table: pa.Table
    source: str
    notes: tuple[str, ...] = ()


def read_table(path: Path, quoted_texts: bool = False) -> RawTable:
    """Read one file. DataError if it cannot be read as what its name says it is.

    ``quoted_texts`` is that of the task (`sparsebert.tasks.table.Task`).
    """
    import pyarrow as pa
    import pyarrow.parquet

    suffix, source = file_type(path), str(path)
    try:
        if suffix == ".parquet":
            # Not pq.read_table: that takes folders named like key=value for partition columns.
            return RawTable(pa.parquet.ParquetFile(path).read(), source)
        text = read_text(path)
    except (pa.ArrowException, OSError) as fault:
        reason = str(fault).strip().splitlines()[0] if str(fault).strip() else type(fault).__name__
        raise DataError(f"{path} cannot be read as {suffix[1:]}: {reason}") from fault
    if suffix in (".csv", ".tsv"):
        found = parse_delimited(text, source, tabs=suffix == ".tsv", quoted_texts=quoted_texts)
        columns = list(zip(*found.rows, strict=True)) or [()] * len(found.header)
        arrays = [pa.array(column, pa.string()) for column in columns]
        return RawTable(pa.Table.from_arrays(arrays, names=found.header), source, found.notes)
    return RawTable(table_of_rows(parse_rows(text, source), source), source)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, gzipped or not, its line ends as they are. DataError if it is none.

    Raises OSError if the file itself cannot be read.
    """
    content = path.read_bytes()
    try:
        if path.name.lower().endswith(GZIP):
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error) as fault:
        raise DataError(f"{path} cannot be read as gzip: {fault}.") from fault
    except UnicodeDecodeError as fault:
        raise DataError(f"{path} cannot be read: it is not UTF-8 text.") from fault


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
