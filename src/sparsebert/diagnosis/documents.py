"""Queries and documents: negatives that are in fact right, and a corpus too small to score on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from sparsebert.diagnosis.report import Check, Finding, Problem, Severity, plural
from sparsebert.diagnosis.tables import GROUP, Split
from sparsebert.tasks.columns import show
from sparsebert.tasks.table import Kind, Task

_FEW = 100  # documents, of which the ten nearest are a tenth

WRONG_NEGATIVES = Problem(
    "wrong-negatives",
    Severity.WARNING,
    "remove these documents from the negatives: training skips them, and scoring counts them as "
    "right.",
)
SMALL_CORPUS = Problem(
    "small-corpus",
    Severity.NOTE,
    "among so few documents, the nearest ten are easily right: score more rows, or provide a "
    "separate corpus in BEIR's layout (corpus.jsonl, queries.jsonl and qrels).",
)


def check_documents(task: Task, splits: list[Split]) -> Iterator[Check]:
    """The checks of each split of a retrieval task; none for other tasks."""
    if task.kind is not Kind.RETRIEVAL:
        return
    for split in splits:
        queries, *documents = split.columns
        distinct = {text for column in documents for text in column}
        findings = [_wrong_negatives(split)]
        # A separate corpus has more documents than those with judgements.
        if split.name != "train" and len(distinct) < _FEW and not task.label_column:
            said = f"it has only {plural(len(distinct), 'distinct document')}."
            findings.append(SMALL_CORPUS.at(split.name, said))
        seen = f"{plural(len(set(queries)), 'query', 'queries')}, "
        yield Check.of(
            GROUP,
            f"documents of {split.name}",
            seen + plural(len(distinct), "distinct document"),
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
    return WRONG_NEGATIVES.among(
        split.name,
        rows,
        len(split),
        "rows have a negative that is right for their query.",
        lambda row: f"row {row + 1}: {show(queries[row])}",
    )
