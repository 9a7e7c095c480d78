"""Queries and documents: negatives that are looked for, and a corpus too small to search."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from sparsebert.diagnosis.report import Check, Finding, Kind, Severity, plural, share
from sparsebert.diagnosis.tables import GROUP, Split
from sparsebert.tasks.columns import show
from sparsebert.tasks.table import Kind as TaskKind
from sparsebert.tasks.table import Task

_FEW = 100  # documents; the first ten of them are a tenth of all

WRONG_NEGATIVES = Kind(
    "wrong-negatives",
    Severity.WARNING,
    "a document that answers its query cannot be told from one that does: remove it from the "
    "negatives (training passes over it, and a score counts it as right).",
)
SMALL_CORPUS = Kind(
    "small-corpus",
    Severity.NOTE,
    "the nearest ten of so few documents are easily right: score more rows, or search a corpus of "
    "its own (corpus.jsonl, queries.jsonl and qrels, as BEIR has them).",
)


def check_documents(task: Task, splits: list[Split]) -> Iterator[Check]:
    """The checks of each split of a retrieval; none for other tasks."""
    if task.kind is not TaskKind.RETRIEVAL:
        return
    for split in splits:
        queries, *documents = split.columns
        distinct = {text for column in documents for text in column}
        findings = [_wrong_negatives(split)]
        # A corpus of its own has more documents than the judged ones.
        if split.name != "train" and len(distinct) < _FEW and not task.label_column:
            said = f"it has {plural(len(distinct), 'different document')}."
            findings.append(SMALL_CORPUS.at(split.name, said))
        seen = f"{plural(len(set(queries)), 'query', 'queries')}, "
        yield Check.of(
            GROUP,
            f"documents of {split.name}",
            seen + plural(len(distinct), "different document"),
            findings,
        )


def _wrong_negatives(split: Split) -> Finding | None:
    queries, positives, *negatives = split.columns
    wanted: dict[str | None, set[str | None]] = defaultdict(set)
    for query, document in zip(queries, positives, strict=True):
        wanted[query].add(document)
    rows = [
        row
        for row in range(len(split))
        if any(column[row] in wanted[queries[row]] for column in negatives)
    ]
    if not rows:
        return None
    return WRONG_NEGATIVES.at(
        split.name,
        f"{share(len(rows), len(split))} rows have a negative that their query looks for.",
        count=len(rows),
        total=len(split),
        examples=(f"row {row + 1}: {show(queries[row])}" for row in rows),
    )
