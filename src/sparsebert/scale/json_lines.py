"""JSON lines: scanning for column types and the offsets of parts, and reading a part's rows.

They are parsed by Python's json rather than pyarrow's reader, which turns every string that looks
like a timestamp into one: kept columns must stay unchanged.
"""

from __future__ import annotations

import io
import itertools
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from sparsebert.errors import DataError, reason_of
from sparsebert.scale.columns import SEPARATELY, Columns
from sparsebert.scale.input_files import InputFile, InputFiles
from sparsebert.tasks.expansion import LONGEST_LINE, MOST_COLUMNS, Expansion

if TYPE_CHECKING:
    import pyarrow as pa

    from sparsebert.scale.parts import Part

_BLOCK = 1 << 20  # bytes read at a time
_Line = tuple[int, int, bytes, dict[str, Any]]  # see `_lines`
_ROWS = 1024  # rows whose column types are determined together


def scan_json_lines(
    inputs: InputFiles, file: InputFile, columns: Columns, rows_per_file: int
) -> tuple[pa.Schema, list[tuple[int, int, int, int, int]]]:
    """The columns of a file, and start, stop (in bytes), rows, first line and checksum of parts.

    A compressed file is one part. Raises DataError, naming the line, if a line is not a JSON object
    or the types of a column differ.
    """
    import pyarrow as pa

    wanted = None if columns.keep is None else {*columns.texts, *columns.keep}
    per_part = None if file.is_compressed else rows_per_file
    schema, runs = pa.schema([]), []
    rows = start = end = checksum = 0
    first = 1
    lines = _lines(inputs, file)
    while some := list(islice(lines, min(_ROWS, per_part - rows) if per_part else _ROWS)):
        found = _schema(some, wanted, file)
        schema = _merged(schema, found, file, some[0][0])
        rows += len(some)
        end = some[-1][1]
        checksum = _checksum(some, checksum)
        if rows == per_part:
            runs.append((start, end, rows, first, checksum))
            start, rows, first, checksum = end, 0, some[-1][0] + 1, 0
    if rows:
        runs.append((start, -1 if file.is_compressed else end, rows, first, checksum))
    if not runs:
        schema = pa.schema([pa.field(name, pa.null()) for name in columns.texts])
    return columns.of_file(schema, file.name), runs


def read_json_lines(
    inputs: InputFiles, file: InputFile, schema: pa.Schema, part: Part, rows_at_once: int
) -> Iterator[pa.Table]:
    """The rows of a part, as tables of ``schema``. DataError if they have changed."""
    import pyarrow as pa

    checksum = 0
    lines = _lines(inputs, file, part.start, part.stop, part.line)
    while some := list(islice(lines, rows_at_once)):
        checksum = _checksum(some, checksum)
        rows = [row for *_, row in some]
        try:
            yield pa.Table.from_pylist(rows, schema=schema)
        except (pa.ArrowException, OverflowError) as fault:
            raise DataError(
                f"{file.name}, from line {some[0][0]} on: a value does not fit the other rows of "
                f"its column, or the file has changed since the job began ({fault}). {SEPARATELY}"
            ) from fault
    if checksum != part.checksum:
        raise file.changed()


def _checksum(lines: Sequence[_Line], checksum: int) -> int:
    """The CRC-32 of lines after others with the given one."""
    for line in lines:
        checksum = zlib.crc32(line[2], checksum)
    return checksum


def _lines(
    inputs: InputFiles, file: InputFile, start: int = 0, stop: int = -1, number: int = 1
) -> Iterator[_Line]:
    """Line number, end (byte offset), bytes and object of each line that is not blank."""
    from sparsebert.tasks.reading import parse_object

    offset = start
    expansion = Expansion(file.name, file.nbytes)
    with _opened(inputs, file, start) as source:
        try:
            for count in itertools.count(number):
                raw = source.readline(LONGEST_LINE + 1)
                if not raw or 0 <= stop <= offset:
                    return
                if len(raw) > LONGEST_LINE:
                    raise DataError(
                        f"{file.name}, line {count} is longer than {LONGEST_LINE >> 20} MiB."
                    )
                expansion.add(len(raw))
                offset += len(raw)
                if raw.strip():
                    yield count, offset, raw, parse_object(raw, f"{file.name}, line {count}")
        except OSError as fault:
            raise DataError(f"{file.name} cannot be read: {reason_of(fault)}.") from fault


@contextmanager
def _opened(inputs: InputFiles, file: InputFile, start: int) -> Iterator[io.BufferedReader]:
    try:
        if file.is_compressed:
            source = inputs.filesystem.open_input_stream(file.path)  # decompresses it, by its name
        else:
            source = inputs.filesystem.open_input_file(file.path)
            source.seek(start)
    except OSError as fault:
        raise DataError(f"{file.name} cannot be read: {reason_of(fault)}.") from fault
    with source:
        yield io.BufferedReader(source, _BLOCK)


def _schema(lines: Sequence[_Line], wanted: set[str] | None, file: InputFile) -> pa.Schema:
    import pyarrow as pa

    fields = []
    names = dict.fromkeys(name for *_, row in lines for name in row)
    if len(names) > MOST_COLUMNS:  # each would become a column with an entry for every row
        raise DataError(
            f"{file.name}, from line {lines[0][0]} on: there are {len(names)} different column "
            f"names; at most {MOST_COLUMNS} are supported."
        )
    for name in names:
        if wanted is None or name in wanted:
            try:
                kind = pa.array([row.get(name) for *_, row in lines]).type
            except (pa.ArrowException, OverflowError) as fault:
                raise _mixed(file, lines[0][0], fault, name) from fault
            fields.append(pa.field(name, kind))
    return pa.schema(fields)


def _merged(known: pa.Schema, found: pa.Schema, file: InputFile, line: int) -> pa.Schema:
    import pyarrow as pa

    try:
        return pa.unify_schemas([known, found], promote_options="permissive")
    except pa.ArrowException as fault:
        raise _mixed(file, line, fault) from fault


def _mixed(file: InputFile, line: int, fault: Exception, column: str = "") -> DataError:
    where = f"column '{column}'" if column else "a column"
    return DataError(
        f"{file.name}, from line {line} on: {where} has mixed types or unsupported values "
        f"({fault}). Leave it out with --keep-columns (keep_columns=)."
    )
