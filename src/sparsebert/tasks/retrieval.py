"""Queries and the documents that answer them, for an embedding model.

A file has one of the columns ``anchor``, ``query`` or ``question``, and one of ``positive``,
``passage``, ``document``, ``context`` or ``answer``. It may also have texts that do not answer the
query, in ``negative`` or ``negative_1``, ``negative_2``, ... The searched corpus consists of all
positives and negatives of the scored rows.

Or data has the layout of BEIR (Thakur et al. 2021, arXiv:2104.08663), with a separate corpus:

    corpus.jsonl     {"_id": "d1", "title": "...", "text": "..."}
    queries.jsonl    {"_id": "q1", "text": "..."}
    qrels/train.tsv  query-id, corpus-id and score, tab-separated, with a header; likewise dev, test
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.errors import DataError
from sparsebert.tasks.columns import as_number, need_columns, show
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.files import split_names
from sparsebert.tasks.reading import RawTable, parse_delimited, parse_rows, read_text
from sparsebert.tasks.table import EMBEDDING_LENGTH, RETRIEVAL, Kind, Task

if TYPE_CHECKING:
    import pyarrow as pa

QUERY_COLUMNS = ("anchor", "query", "question")
DOCUMENT_COLUMNS = ("positive", "passage", "document", "context", "answer")
RELEVANCE = "relevance"
"""Optional column: how relevant each row's document is, above 0. Without it, all count the same."""
_NEGATIVE = re.compile(r"negative(_\d+)?")
_LIKE_NEGATIVE = re.compile(r"(hard_?)?neg(ative)?s?(_\d+)?", re.IGNORECASE)
_CORPUS, _QUERIES, _JUDGEMENTS = "corpus.jsonl", "queries.jsonl", "qrels"


def retrieval_of_table(raw: RawTable, labels: Sequence[str] | None, options: DataOptions) -> Task:
    """The task that a table describes; see `sparsebert.tasks.own`. Raises DataError."""
    refused = ("label_column", "label_columns", "threshold", "label_names", "positive_label")
    options.refuse(*refused, why=f"is for tasks with labels, and {RETRIEVAL} has none")
    table, source = raw.table, raw.source
    if options.text_columns is not None:
        columns = options.text_columns
    else:
        columns = (
            _one_of(QUERY_COLUMNS, table, source, "query", "--text-column"),
            _one_of(DOCUMENT_COLUMNS, table, source, "document", "--pair-column"),
        )
    if len(columns) != 2:
        raise DataError(f"{RETRIEVAL} has two texts per row: pass text_column and pair_column.")
    need_columns(table, columns, source)
    negatives = [
        name for name in table.column_names if _NEGATIVE.fullmatch(name) and name not in columns
    ]
    for name in table.column_names:
        if _LIKE_NEGATIVE.fullmatch(name) and name not in (*columns, *negatives):
            raise DataError(
                f"{source}: the column '{name}' is not read; texts that do not answer the query "
                "are in a column negative, or in negative_1, negative_2, ..., one in each: rename "
                "or remove it."
            )
    return Task(
        name=RETRIEVAL,
        title="retrieval",
        kind=Kind.RETRIEVAL,
        text_columns=columns,
        metrics=("ndcg@10", "mrr@10", "recall@1", "recall@10"),
        main_metric="ndcg@10",
        negative_columns=tuple(negatives),
        label_column=RELEVANCE if RELEVANCE in table.column_names else "",
        max_length=EMBEDDING_LENGTH,
    )


def document_columns(table: pa.Table) -> tuple[str, ...]:
    """The columns of queries and documents, if a table has exactly one of each; else none."""
    found = [
        [name for name in names if name in table.column_names]
        for names in (QUERY_COLUMNS, DOCUMENT_COLUMNS)
    ]
    return tuple(names[0] for names in found) if all(len(names) == 1 for names in found) else ()


def holds_documents(table: pa.Table, options: DataOptions) -> bool:
    """Whether there is at least one column for queries and one for documents."""
    if options.text_columns is not None:
        return len(options.text_columns) == 2
    known = (QUERY_COLUMNS, DOCUMENT_COLUMNS)
    return all(any(name in table.column_names for name in names) for names in known)


def _one_of(names: Sequence[str], table: pa.Table, source: str, what: str, option: str) -> str:
    there = [name for name in names if name in table.column_names]
    if len(there) != 1:
        found = ", ".join(f"'{name}'" for name in table.column_names)
        several = f"more than one column for the {what}" if there else f"no column for the {what}"
        raise DataError(
            f"{source} has {several}: name it {', '.join(names[:-1])} or {names[-1]}, or say which "
            f"with {option}. Its columns are {found}."
        )
    return there[0]


def is_beir(data: Path) -> bool:
    """Whether a data folder has BEIR's corpus and queries."""
    return (data / _CORPUS).is_file() and (data / _QUERIES).is_file()


def beir_splits(data: Path, split: str) -> Path | None:
    """The file with a split's relevance judgements; None if there is none."""
    files = (data / _JUDGEMENTS / f"{name}.tsv" for name in split_names(split))
    return next((file for file in files if file.is_file()), None)


def beir_table(data: Path, split: str) -> RawTable:
    """The judged pairs of a split as a table of ``query``, ``document`` and ``relevance``.

    Its corpus has every distinct document once; a document with a query's id and text is the query
    itself. Judgements of 0 and below are left out. DataError for files that cannot be read and for
    an unknown query or document id.
    """
    import pyarrow as pa

    file = beir_splits(data, split)
    if file is None:
        raise DataError(f"{data / _JUDGEMENTS} holds no {split}.tsv.")
    queries = _texts(data / _QUERIES)
    documents = _texts(data / _CORPUS)
    found = parse_delimited(_read(file), str(file), tabs=True)
    if len(found.header) != 3 or as_number(found.header[2]) is not None:
        raise DataError(
            f"{file} must begin with a line that names its three columns: query-id, corpus-id and "
            "score."
        )
    rows = []
    for row, (query, document, score) in enumerate(found.rows, 1):
        relevance = as_number(score)
        if relevance is None:
            raise DataError(f"{file}, row {row}: {show(score)} is not a number.")
        for name, texts, where in ((query, queries, _QUERIES), (document, documents, _CORPUS)):
            if name not in texts:
                raise DataError(f"{file}, row {row}: {where} has no {show(name)}.")
        if relevance > 0:
            rows.append((queries[query], documents[document], relevance))
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    types = (pa.string(), pa.string(), pa.float32())
    arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    table = pa.Table.from_arrays(arrays, names=["query", "document", RELEVANCE])
    themselves = {
        query: documents[name]
        for name, query in queries.items()
        if query and documents.get(name, "").endswith(query)  # after its title
    }
    return RawTable(table, str(file), corpus=_different(documents), themselves=themselves)


def beir_texts(data: Path) -> list[str | tuple[str, str]]:
    """All documents, and the queries of the train split if there is one."""
    if not beir_splits(data, "train"):
        return [*_different(_texts(data / _CORPUS))]
    raw = beir_table(data, "train")
    return [*raw.corpus, *dict.fromkeys(raw.table.column("query").to_pylist())]


def _different(texts: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts.values()))


def _texts(file: Path) -> dict[str, str]:
    """Texts by id, each preceded by its title."""
    found: dict[str, str] = {}
    for number, row in enumerate(parse_rows(_read(file), str(file)), 1):
        name, text, title = row.get("_id"), row.get("text"), row.get("title") or ""
        if not isinstance(name, str) or not isinstance(text, str) or not isinstance(title, str):
            raise DataError(
                f"{file}, row {number}: '_id' and 'text' (and 'title', if any) must be strings."
            )
        if name in found:
            raise DataError(
                f"{file}, row {number}: {show(name)} is already the id of an earlier row."
            )
        found[name] = f"{title} {text}".strip() if title else text
    return found


def _read(file: Path) -> Any:
    try:
        return read_text(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from error
