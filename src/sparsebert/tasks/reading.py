"""A task's split as a table: from a file (Parquet, CSV, TSV, JSON, CoNLL, gzipped) or the hub.

CSV and TSV: every cell stays text. Quoting follows RFC 4180 strictly: a quote that is never closed,
or text after a closing quote, is an error. A TSV may also have been written without quoting, as
GLUE's own files are, so that a quote in it is an ordinary character; this is detected from the
file.

JSON: one object per line, an array of objects, or a file in SQuAD's published layout. It is read by
Python's own parser because pyarrow's turns text that looks like a timestamp into one, and crashes
on some lines.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.checkpoint.json_files import parse_json
from sparsebert.errors import DataError, reading
from sparsebert.extras import need_extra
from sparsebert.tasks.columns import show
from sparsebert.tasks.conll import parse_conll
from sparsebert.tasks.expansion import MOST_COLUMNS, ParquetRows, gunzip
from sparsebert.tasks.files import CONLL_TYPES, GZIP, TABLE_TYPES, file_type
from sparsebert.tasks.squad_articles import rows_of_articles, squad_articles
from sparsebert.tasks.table import Kind, Task

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class RawTable:
    """An unvalidated table; all cells of a CSV or TSV file are text.

    ``source`` is its name in messages; ``notes`` are sentences on how it was read; ``corpus`` has
    documents to search besides those of the rows; ``themselves`` maps each query that is itself a
    document to that document.
    """

    table: pa.Table
    source: str
    notes: tuple[str, ...] = ()
    corpus: tuple[str, ...] = ()
    themselves: Mapping[str, str] = field(default_factory=dict)


def read_table(path: Path, task: Task | None = None) -> RawTable:
    """Read one file. DataError if it cannot be read as the type that its name says.

    ``task`` decides what the ending means: named entities are read from CoNLL files.
    """
    suffix = file_type(path, TABLE_TYPES if task is None else task.file_types)
    with reading(path, DataError):
        if suffix == ".parquet":
            return RawTable(_read_parquet(path), str(path))
        return _read_text_table(path, suffix, task)


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("rb") as file, path.open("rb") as pages:
        opened = pq.ParquetFile(file)
        rows = ParquetRows(opened, pages, path.stat().st_size, str(path))
        return pa.Table.from_batches(rows.batches(), opened.schema_arrow)


def _read_text_table(path: Path, suffix: str, task: Task | None) -> RawTable:
    import pyarrow as pa

    text, source = read_text(path), str(path)
    if suffix in CONLL_TYPES and task is not None and task.kind is Kind.TOKENS:
        return RawTable(parse_conll(text, source), source)
    if suffix in (".csv", ".tsv"):
        quoted = task is not None and task.quoted_texts
        found = parse_delimited(text, source, tabs=suffix == ".tsv", quoted_texts=quoted)
        columns = list(zip(*found.rows, strict=True)) or [()] * len(found.header)
        arrays = [pa.array(column, pa.string()) for column in columns]
        return RawTable(pa.Table.from_arrays(arrays, names=found.header), source, found.notes)
    return RawTable(table_of_rows(parse_rows(text, source), source), source)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, gzipped or not, with line ends unchanged. DataError if not UTF-8.

    Raises OSError if the file itself cannot be read.
    """
    content = path.read_bytes()
    if path.name.lower().endswith(GZIP):
        content = gunzip(content, path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = content.count(b"\n", 0, fault.start) + 1
        raise DataError(
            f"{path} cannot be read: it is not UTF-8 text (byte 0x{content[fault.start]:02X} in "
            f"line {line}). Save it as UTF-8 (in a spreadsheet program, as 'CSV UTF-8')."
        ) from fault


def fetch_split(task: Task, split: str) -> pa.Table:
    """One split, fetched by the ``datasets`` library, which caches it.

    Raises DataError if the task is not on the hub or cannot be fetched.
    """
    if task.hub_id is None:
        raise DataError(
            f"the task {task.name} is not on the hub: pass its data as a folder or file."
        )
    need_extra("fetching data from the hub", "datasets")
    import datasets
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        dataset = datasets.load_dataset(task.hub_id, task.hub_config, split=split)
    except Exception as fault:  # offline, gated, renamed: the library raises many kinds
        raise DataError(
            f"the split {split} of {task.name} could not be fetched from the hub "
            f"({task.hub_id}): {_first_line(fault)} Pass the data as a folder instead."
        ) from fault
    return dataset.with_format("arrow")[:]


def _first_line(fault: Exception) -> str:
    text = str(fault).strip()
    line = text.splitlines()[0] if text else type(fault).__name__
    return line if line.endswith(".") else line + "."


@dataclass(frozen=True)
class Delimited:
    """A table of text: ``header`` has the column names, each of ``rows`` one cell per column.

    ``notes`` are sentences on how the file was read.
    """

    header: list[str]
    rows: list[list[str]]
    notes: tuple[str, ...] = ()


def parse_delimited(text: str, source: str, *, tabs: bool, quoted_texts: bool = False) -> Delimited:
    """The table in ``text``, without blank lines. DataError, naming the line, if it is malformed.

    Without ``tabs``, cells are separated by commas, or by semicolons or tabs if the header contains
    those and no comma. ``quoted_texts``: texts may begin and end with quotes that are part of them.
    """
    if not tabs:
        return _quoted(text, source, _delimiter(text))
    numbered = {
        number: line.removesuffix("\r").split("\t")
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip("\r")
    }
    lines = list(numbered.values())
    fault = _uneven(numbered)
    if fault is None:
        if _is_quoted(lines, quoted_texts):
            return _quoted(text, source, "\t")
        return Delimited(lines[0] if lines else [], lines[1:])
    # Cells that hold tabs or line breaks can only have been written with quotes.
    try:
        return _quoted(text, source, "\t")
    except DataError:
        raise DataError(f"{source}, {fault}.") from None


def _delimiter(text: str) -> str:
    header = text.split("\n", 1)[0]
    others = [each for each in ";\t" if each in header]
    return others[0] if others and "," not in header else ","


def _quoted(text: str, source: str, delimiter: str) -> Delimited:
    header: list[str] = []
    rows: list[list[str]] = []
    several: list[tuple[int, int, int]] = []  # rows over several lines: line count, row, first line
    first = 1
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(max(len(text), 1))  # the default refuses cells over 131,072
    try:
        for cells in reader:
            if cells and not header:
                header = cells
            elif cells:
                rows.append(cells)
                if len(cells) != len(header):
                    raise DataError(
                        f"{source}, line {first}: {_counted(cells, header)}; a cell that contains "
                        f"{_NAMES[delimiter]} or quotes must be quoted."
                    )
                if reader.line_num > first:
                    several.append((reader.line_num - first + 1, len(rows), first))
            first = reader.line_num + 1
    except csv.Error as fault:
        reason = "a quote is never closed" if "end of data" in str(fault) else _reason(str(fault))
        raise DataError(f"{source}, line {first}: {reason}.") from fault
    finally:
        csv.field_size_limit(limit)
    return Delimited(header, rows, (_said(several, source),) if several else ())


_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs"}


def _reason(fault: str) -> str:
    if "expected after" in fault:
        return 'text follows a closing quote; write a quote inside a quoted cell as ""'
    return fault


def _said(several: Sequence[tuple[int, int, int]], source: str) -> str:
    lines, row, first = max(several, key=lambda each: (each[0], -each[1]))
    rows = "1 row spans" if len(several) == 1 else f"{len(several):,} rows span"
    return (
        f"{source}: {rows} several lines inside quotes, the longest (row {row}) lines {first} to "
        f"{first + lines - 1}; if these are separate rows, a quote was not closed."
    )


def _uneven(lines: Mapping[int, Sequence[str]]) -> str | None:
    """A message about the first line with more or fewer cells than the header; None if none has."""
    header = next(iter(lines.values()), ())
    for number, cells in lines.items():
        if len(cells) != len(header):
            return f"line {number}: {_counted(cells, header)}"
    return None


def _counted(cells: Sequence[str], header: Sequence[str]) -> str:
    return f"it has {len(cells)} cells and the header has {len(header)}"


def _is_quoted(lines: Sequence[Sequence[str]], quoted_texts: bool) -> bool:
    """Whether a TSV uses quoting, given that no cell contains tabs or line breaks.

    Some writers quote all texts, including the header. Others quote only where necessary: here, in
    cells that contain quotes, which are then doubled. A single cell that begins with a quote but
    does not fit this shows that the file is unquoted. With ``quoted_texts``, a writer's quotes
    enclose those of the text.
    """
    if any(_encloses(cell) for cell in (lines[0] if lines else ())):
        return True
    opened = [cell for line in lines for cell in line if cell.startswith('"')]
    sign = '""' if quoted_texts else ""
    return bool(opened) and all(
        _encloses(cell) and '""' in cell[1:-1] and cell[1:-1].startswith(sign) for cell in opened
    )


def _encloses(cell: str) -> bool:
    """Whether a cell is in quotes and every quote inside is doubled."""
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")


def parse_object(line: str | bytes, where: str) -> dict[str, Any]:
    """The object of one line. DataError, beginning with ``where``, for anything else."""
    try:
        found = parse_json(line.decode("utf-8-sig") if isinstance(line, bytes) else line)
    except ValueError as fault:
        raise DataError(f"{where}: not JSON ({fault}).") from None
    if not isinstance(found, dict):
        raise DataError(f"{where}: the line's JSON is not an object.")
    return found


def parse_rows(text: str, source: str) -> list[dict[str, Any]]:
    """All rows of a file, without blank lines. DataError, naming the line or row."""
    if not text.lstrip().startswith("["):
        articles = squad_articles(text)
        if articles is not None:
            return rows_of_articles(articles, source)
        return [
            parse_object(line, f"{source}, line {number}")
            for number, line in enumerate(text.split("\n"), 1)
            if line.strip()
        ]
    try:
        rows = parse_json(text)
    except ValueError as fault:
        raise DataError(f"{source}: not JSON ({fault}).") from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{source}, row {number}: {show(row)} is not an object.")
    return list(rows)


def table_of_rows(rows: Sequence[dict[str, Any]], source: str) -> pa.Table:
    """Rows as columns, null where a row lacks a value. DataError for a column of mixed types."""
    import pyarrow as pa

    names = list(dict.fromkeys(name for row in rows for name in row))
    if len(names) > MOST_COLUMNS:  # each would become a column with an entry for every row
        raise DataError(
            f"{source} has {len(names)} different column names; at most {MOST_COLUMNS} are "
            "supported."
        )
    columns = []
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns.append(pa.array(values))
        except (pa.ArrowException, OverflowError) as fault:
            reason = _mixture(values) or f"has a value that cannot be read ({fault})."
            raise DataError(f"{source}: column '{name}' {reason}") from fault
    return pa.Table.from_arrays(columns, names=names)


def _mixture(values: Sequence[Any]) -> str | None:
    """A message about two rows with different types; None if all have one type."""
    there = [(row, value) for row, value in enumerate(values, 1) if value is not None]
    for row, value in there:
        if type(value) is not type(there[0][1]):
            return (
                f"has mixed types: row {there[0][0]} is {show(there[0][1])} and row {row} is "
                f"{show(value)}. Write all values the same way, for example as text in quotes."
            )
    return None
