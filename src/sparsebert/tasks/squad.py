"""SQuAD's answers: reading and checking the nested column of texts and places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparsebert.errors import DataError
from sparsebert.tasks.columns import refuse_nulls, show

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Answers:
    """The accepted answers of one question: their words and the character each starts at."""

    texts: tuple[str, ...]
    starts: tuple[int, ...]


def answers_column(table: pa.Table, name: str, contexts: list[str], source: str) -> list[Answers]:
    """A column of ``{"text": [...], "answer_start": [...]}``, each held against its context.

    Raises DataError for another type, for a question without an answer (SQuAD v2 has such), and
    for an answer that does not stand where it says.
    """
    import pyarrow as pa

    column = table.column(name)
    refuse_nulls(column, name, source)
    fields = {field.name for field in column.type} if pa.types.is_struct(column.type) else set()
    if not {"text", "answer_start"} <= fields:
        raise DataError(
            f"{source}: the column '{name}' must hold lists 'text' and 'answer_start' as SQuAD's "
            f"does; it holds {column.type}."
        )
    rows: list[dict[str, Any]] = column.to_pylist()
    return [
        _checked(row, value, contexts[row], f"{source}: column '{name}', row {row + 1}")
        for row, value in enumerate(rows)
    ]


def _checked(row: int, value: dict[str, Any], context: str, where: str) -> Answers:
    texts, starts = value["text"], value["answer_start"]
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise DataError(f"{where}: 'text' and 'answer_start' must be lists of one length.")
    if not texts:
        raise DataError(
            f"{where} has no answer: only questions that have one (SQuAD v1.1) can be used."
        )
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not isinstance(start, int):
            raise DataError(f"{where}: {show(text)} at {show(start)} is not an answer and a place.")
        if not text or start < 0 or context[start : start + len(text)] != text:
            raise DataError(
                f"{where}: the answer {show(text)} does not stand at character {start} of the "
                "context."
            )
    return Answers(tuple(texts), tuple(starts))
