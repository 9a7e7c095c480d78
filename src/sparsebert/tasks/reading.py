"""A task's split as a table: from a file (Parquet, CSV, TSV, JSON, CoNLL, gzipped) or the hub.

CSV and TSV: every cell is the text that stands there. Quotes are read as RFC 4180 has them, and
strictly: a quote that is never closed, or text behind a closing one, is an error and not a guess. A
TSV may have been written without any quoting, as GLUE's own files are, so that a quote in it is a
character like any other; the file itself shows which.

JSON: an object a line, one array of objects, or a file as SQuAD's authors publish it. Python's own
parser reads it, and not pyarrow's, which makes a time of every text that looks like one and crashes
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

    ``source`` is what messages call it; ``notes`` are sentences on how it was read; ``corpus`` has
    documents to search beside those of the rows, ``themselves`` those that a query is itself.
    """

    table: pa.Table
    source: str
    notes: tuple[str, ...] = ()
    corpus: tuple[str, ...] = ()
    themselves: Mapping[str, str] = field(default_factory=dict)


def read_table(path: Path, task: Task | None = None) -> RawTable:
    """Read one file. DataError if it cannot be read as what its name says it is.

    ``task`` says what its ending means: one of words reads CoNLL files.
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
    """The text of a UTF-8 file, gzipped or not, its line ends as they are. DataError if it is none.

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
            f"line {line}). Save it as UTF-8, in a spreadsheet as 'CSV UTF-8'."
        ) from fault


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


@dataclass(frozen=True)
class Delimited:
    """``header`` has the names of the columns, ``rows`` as many cells each.

    ``notes`` say, in a sentence each, what a reader should know about how the file was read.
    """

    header: list[str]
    rows: list[list[str]]
    notes: tuple[str, ...] = ()


def parse_delimited(text: str, source: str, *, tabs: bool, quoted_texts: bool = False) -> Delimited:
    """The table in ``text``; blank lines are left out. DataError, naming the line, if it is none.

    Without ``tabs`` cells are separated by commas; by semicolons or tabs if the header has no comma
    and one of these. ``quoted_texts``: texts may begin and end with quotes that belong to them.
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
    several: list[tuple[int, int, int]] = []  # lines, row and first line of a row over several
    first = 1
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(max(len(text), 1))  # else a cell of 131,073 characters is an error
    try:
        for cells in reader:
            if cells and not header:
                header = cells
            elif cells:
                rows.append(cells)
                if len(cells) != len(header):
                    raise DataError(
                        f"{source}, line {first}: {_counted(cells, header)}; a cell with "
                        f"{_NAMES[delimiter]} or quotes in it needs quotes around it."
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
        return 'text stands behind a closing quote; a quote inside a quoted cell is written ""'
    return fault


def _said(several: Sequence[tuple[int, int, int]], source: str) -> str:
    lines, row, first = max(several, key=lambda each: (each[0], -each[1]))
    rows = "1 row goes" if len(several) == 1 else f"{len(several):,} rows go"
    return (
        f"{source}: {rows} over several lines inside quotes, the longest (row {row}) over lines "
        f"{first} to {first + lines - 1}; if these are rows of their own, a quote was not closed."
    )


def _uneven(lines: Mapping[int, Sequence[str]]) -> str | None:
    """The first line whose cells are not as many as the header's, if there is one."""
    header = next(iter(lines.values()), ())
    for number, cells in lines.items():
        if len(cells) != len(header):
            return f"line {number}: {_counted(cells, header)}"
    return None


def _counted(cells: Sequence[str], header: Sequence[str]) -> str:
    return f"it has {len(cells)} cells and the header has {len(header)}"


def _is_quoted(lines: Sequence[Sequence[str]], quoted_texts: bool) -> bool:
    """Whether quotes enclose cells here, in a TSV without tabs or line breaks in its cells.

    Some writers quote all texts, the header's too. The others quote only what needs it: here what
    has quotes in it, which are then doubled. One opening quote without both shows that nothing in
    the file is quoted. Where texts have quotes around them already, a writer's own stand outside.
    """
    if any(_encloses(cell) for cell in (lines[0] if lines else ())):
        return True
    opened = [cell for line in lines for cell in line if cell.startswith('"')]
    sign = '""' if quoted_texts else ""
    return bool(opened) and all(
        _encloses(cell) and '""' in cell[1:-1] and cell[1:-1].startswith(sign) for cell in opened
    )


def _encloses(cell: str) -> bool:
    """Whether a cell is in quotes, and every quote between them doubled."""
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
    """All rows of a file; blank lines are left out. DataError, naming the line or row."""
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
    """Rows as columns; what a row lacks is null. DataError for a column of several types."""
    import pyarrow as pa

    names = list(dict.fromkeys(name for row in rows for name in row))
    if len(names) > MOST_COLUMNS:  # each of them would be a column of all rows
        raise DataError(
            f"{source} has {len(names)} different names of columns, and at most {MOST_COLUMNS} are "
            "read."
        )
    columns = []
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns.append(pa.array(values))
        except (pa.ArrowException, OverflowError) as fault:
            raise DataError(f"{source}: column '{name}' {_mixture(values) or fault}") from fault
    return pa.Table.from_arrays(columns, names=names)


def _mixture(values: Sequence[Any]) -> str | None:
    """Two rows of a column that are of different types."""
    there = [(row, value) for row, value in enumerate(values, 1) if value is not None]
    for row, value in there:
        if type(value) is not type(there[0][1]):
            return (
                f"is not of one type: row {there[0][0]} is {show(there[0][1])} and row {row} is "
                f"{show(value)}. Write all of them the same way, such as text in quotes."
            )
    return None
