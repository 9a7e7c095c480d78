"""Unlabelled texts from the lines of a file or the columns of a table."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sparsebert.errors import DataError
from sparsebert.extras import need_extra
from sparsebert.tasks.columns import holds_lists, need_columns, text_column
from sparsebert.tasks.conll import WORDS
from sparsebert.tasks.custom import TEXT_COLUMNS
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.files import GZIP, TABLE_TYPES, split_files
from sparsebert.tasks.reading import read_table, read_text
from sparsebert.tasks.retrieval import beir_texts, document_columns, is_beir
from sparsebert.tasks.table import TASKS, Task
from sparsebert.tasks.words import joined, words_column

if TYPE_CHECKING:
    import pyarrow as pa

    from sparsebert.tasks.division import Division
    from sparsebert.tasks.examples import Examples

Text = str | tuple[str, str]
"""One text, or a pair that belongs together."""

# Pairs first: a table with both columns of a pair does not hold single texts.
_COLUMNS = sorted(
    {*TEXT_COLUMNS, (WORDS,), *(task.text_columns for task in TASKS.values())},
    key=lambda names: (-len(names), names),
)


def read_texts(
    source: str | Path,
    task: Task | None = None,
    options: DataOptions | None = None,
    *,
    first: tuple[str, ...] = (),
    division: Division | None = None,
) -> list[Text]:
    """All texts of a file or folder, in order; rows with an empty text are left out.

    ``source`` is a ``.txt`` file with one text per line, or a table (Parquet, CSV, TSV, JSON; all
    but the first also gzipped; for named entities CoNLL files as well). Its text columns are those
    that ``options`` name, or those of ``task``; else ``first``, if the table has these, or those of
    any known task. A list of words is one text. A folder stands for its train split, or for all
    ``.txt`` files in it; one in BEIR's layout for its documents and the queries of its train split.
    Validation files are never read, nor are the rows of a file that ``division`` holds out of it.
    Raises DataError if nothing can be read, no column holds texts, or all texts are empty.
    """
    if is_beir(Path(source)):
        return beir_texts(Path(source))
    names = options.text_columns if options else None
    if names is None and task is not None:
        names = task.text_columns
    texts: list[Text] = []
    for path in _files(Path(source), task):
        if _is_text(path, task):
            texts += _lines(path)
        else:
            held = division.indices() if division is not None and division.is_of(path) else ()
            texts += _rows(path, task, names, first, held=frozenset(map(int, held)))
    if not texts:
        raise DataError(f"{source} contains no text.")
    return texts


def texts_of(examples: Examples) -> list[Text]:
    """The texts of a split as `read_texts` returns them; each by itself for embedding models."""
    first, second = (
        [text.strip() for text in each or ()] for each in (examples.texts, examples.pairs)
    )
    if examples.task.embeds or not second:
        return [*first, *second]
    return list(zip(first, second, strict=True))


def single_texts(texts: Iterable[Text]) -> list[str]:
    """All texts in order, with the two halves of each pair as separate texts."""
    return [text for row in texts for text in ((row,) if isinstance(row, str) else row)]


def _is_text(path: Path, task: Task | None = None) -> bool:
    conll = task is not None and ".txt" in task.file_types
    return path.name.lower().removesuffix(GZIP).endswith(".txt") and not conll


def _files(source: Path, task: Task | None) -> list[Path]:
    if source.is_file() and _is_text(source, task):
        return [source]
    need_extra("reading a table of texts", "pyarrow")
    files = split_files(source, "train", TABLE_TYPES if task is None else task.file_types)
    if not files:
        files = sorted(path for path in source.iterdir() if _is_text(path) and path.is_file())
    if not files:
        raise DataError(f"{source} contains neither a file for the train split nor any .txt file.")
    return files


def _lines(path: Path) -> list[Text]:
    try:
        lines = read_text(path).split("\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    return [line.strip() for line in lines if line.strip()]


def _rows(
    path: Path,
    task: Task | None,
    names: tuple[str, ...] | None,
    first: tuple[str, ...],
    *,
    held: Collection[int],
) -> list[Text]:
    raw = read_table(path, task)
    names = names or _text_columns(raw.table, raw.source, first)
    need_columns(raw.table, names, raw.source)
    columns = [_column(raw.table, name, raw.source) for name in names]
    rows = [tuple(text.strip() for text in row) for row in zip(*columns, strict=True)]
    return [
        row[0] if len(row) == 1 else (row[0], row[1])
        for number, row in enumerate(rows)
        if all(row) and number not in held
    ]


def _column(table: pa.Table, name: str, source: str) -> list[str]:
    if holds_lists(table, name):
        return [joined(words) for words in words_column(table, name, source)]
    return text_column(table, name, source)


def _text_columns(table: pa.Table, source: str, first: tuple[str, ...]) -> tuple[str, ...]:
    for names in (first, document_columns(table), *_COLUMNS):
        if names and set(names) <= set(table.column_names):
            return names
    spellings = "; ".join(", ".join(names) for names in _COLUMNS)
    raise DataError(
        f"{source} has no text column: its columns are {', '.join(table.column_names)}; the "
        f"recognised names are {spellings}. Name yours with --text-column (text_column=), or name "
        "a task that has these columns."
    )
