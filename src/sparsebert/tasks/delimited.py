"""CSV and TSV, every cell as the text that stands there.

Quotes are read as RFC 4180 has them, and strictly: a quote that is never closed, or text behind a
closing one, is an error and not a guess. A TSV may have been written without any quoting, as GLUE's
own files are, so that a quote in it is a character like any other; the file itself shows which.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparsebert.errors import DataError


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
