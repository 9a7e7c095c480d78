"""SQuAD answers: reading and checking the nested column of texts and offsets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparsebert.errors import DataError
from sparsebert.tasks.columns import refuse_nulls, show

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Answers:
    """The accepted answers to one question: their texts, and the character at which each starts.

    Both are empty if the context does not contain an answer (SQuAD v2).
    """

    texts: tuple[str, ...]
    starts: tuple[int, ...]


def answers_column(
    table: pa.Table, name: str, contexts: list[str], source: str, *, unanswerable: bool = False
) -> list[Answers]:
    """A column of ``{"text": [...], "answer_start": [...]}``, each checked against its context.

    Raises DataError for another type, for a question without an answer (unless ``unanswerable``, as
    in SQuAD v2), and for an answer that is not at its ``answer_start``.
    """
    column = table.column(name)
    refuse_nulls(column, name, source)
    need_answers(table, name, source)
    rows: list[dict[str, Any]] = column.to_pylist()
    return [
        _checked(value, contexts[row], f"{source}: column '{name}', row {row + 1}", unanswerable)
        for row, value in enumerate(rows)
    ]


def need_answers(table: pa.Table, name: str, source: str) -> None:
    """DataError unless the column holds structs with ``text`` and ``answer_start``."""
    import pyarrow as pa

    kind = table.column(name).type
    fields = {field.name for field in kind} if pa.types.is_struct(kind) else set()
    if not {"text", "answer_start"} <= fields:
        raise DataError(
            f"{source}: the column '{name}' must hold lists 'text' and 'answer_start', as in "
            f"SQuAD; it holds {kind}."
        )


def has_unanswerable(table: pa.Table, name: str) -> bool:
    """Whether the column holds answers in SQuAD's layout and some question has none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table.column(name)
    if not pa.types.is_struct(column.type) or column.type.get_field_index("text") < 0:
        return False
    texts = pc.struct_field(column, "text")
    if not (pa.types.is_list(texts.type) or pa.types.is_large_list(texts.type)):
        return False
    return bool(pc.min(pc.list_value_length(texts)).as_py() == 0)


def _checked(value: dict[str, Any], context: str, where: str, unanswerable: bool) -> Answers:
    fault = answer_fault(value, context, unanswerable=unanswerable)
    if fault is not None:
        raise DataError(f"{where}: {fault}")
    return Answers(tuple(value["text"]), tuple(value["answer_start"]))


def answer_fault(value: dict[str, Any], context: str, *, unanswerable: bool = False) -> str | None:
    """What is wrong with one row's answers, as a sentence; None if they can be used."""
    texts, starts = value["text"], value["answer_start"]
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        return "'text' and 'answer_start' must be lists of the same length."
    if not texts and not unanswerable:
        return "it has no answer: use the task squad_v2 for questions without one."
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not isinstance(start, int):
            return f"{show(text)} at {show(start)} is not a text and an integer offset."
        if not text or start < 0 or context[start : start + len(text)] != text:
            return f"the answer {show(text)} is not at character {start} of the context."
    return None
