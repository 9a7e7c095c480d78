"""Find and read the file behind one split of a task.

``data`` is a folder with files named after the splits, a single file, or None for the hub. In a
folder, the file of a split is ``SPLIT.parquet`` (or another known ending) if there is one, else
the parts of a sharded split (``SPLIT-00000-of-00002.parquet``), else the one file whose name
starts with the split's name (``train_subset.parquet``); anything else is an error, never a guess.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sparsebert.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_CSV = {".csv": ",", ".tsv": "\t"}
_JSON = {".jsonl", ".ndjson", ".json"}
SUFFIXES = (".parquet", *_CSV, *sorted(_JSON))

# pyarrow reads JSON in blocks and cannot read a line that is longer than one: a SQuAD paragraph
# with its answers, or a whole document, must fit.
_JSON_BLOCK_BYTES = 64 << 20


def split_files(data: Path, split: str) -> list[Path]:
    """The files of one split, in reading order; empty if there are none.

    Raises DataError if ``data`` does not exist, is of no known type, or if several files could be
    the split.
    """
    if data.is_file():
        if data.suffix.lower() not in SUFFIXES:
            raise DataError(f"{data} is of no known type: give one of {', '.join(SUFFIXES)}.")
        return [data]
    if not data.is_dir():
        raise DataError(f"{data} does not exist: give a data folder or file.")
    known = sorted(
        path for path in data.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    exact = [path for path in known if path.stem == split]
    if exact:
        return _only(exact, data, split)
    shard = re.compile(re.escape(split) + r"-(\d{5})-of-(\d{5})")
    shards = [(path, found) for path in known if (found := shard.fullmatch(path.stem))]
    if shards:
        count = int(shards[0][1][2])
        numbers = [int(found[1]) for _, found in shards]
        if numbers != list(range(count)) or any(int(found[2]) != count for _, found in shards):
            raise DataError(f"{data} holds only some parts of {split}: {len(shards)} of {count}.")
        return [path for path, _ in shards]
    prefixed = [path for path in known if path.stem.startswith(split)]
    return _only(prefixed, data, split) if prefixed else []


def _only(candidates: list[Path], data: Path, split: str) -> list[Path]:
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates)
        raise DataError(
            f"{data} holds several files for the split {split} ({names}): leave one, or name it "
            f"{split}{candidates[0].suffix}."
        )
    return candidates


def read_table(path: Path, text_columns: tuple[str, ...] = ()) -> pa.Table:
    """Read a parquet, CSV, TSV or JSON lines file; DataError if it cannot be read as its type.

    ``text_columns`` stay text in a CSV file, even where every value of one looks like a number.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet

    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            # Not pq.read_table: that takes folders named like key=value for partition columns.
            return pa.parquet.ParquetFile(path).read()
        if suffix in _CSV:
            return pa.csv.read_csv(
                path,
                parse_options=pa.csv.ParseOptions(delimiter=_CSV[suffix], newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(
                    column_types={name: pa.string() for name in text_columns}
                ),
            )
        return pa.json.read_json(
            path, read_options=pa.json.ReadOptions(block_size=_JSON_BLOCK_BYTES)
        )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as fault:
        reason = str(fault).strip().splitlines()[0] if str(fault).strip() else type(fault).__name__
        raise DataError(f"{path} cannot be read as {suffix[1:]}: {reason}") from fault
