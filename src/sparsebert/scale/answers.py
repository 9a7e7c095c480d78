"""What a job gives for each row: embeddings, or labels with their scores, as Arrow columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sparsebert.errors import InputError
from sparsebert.inference.answer_each import Answers, Work, answer_each
from sparsebert.inference.model import Model, PoolingMode
from sparsebert.inference.texts import Text, as_string
from sparsebert.scale.columns import ERROR, SCORE, TOP, Columns

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Embedding:
    """A vector: a fixed-size list of float32."""

    pooling: PoolingMode | None = None
    normalize: bool | None = None
    prompt: str | None = None
    batch_size: int = 32
    strict: bool = False

    verb: ClassVar[str] = "embed"

    def fields(self, model: Model, name: str) -> list[pa.Field]:
        """The new columns, save that of errors."""
        import pyarrow as pa

        return [pa.field(name, pa.list_(pa.float32(), model.config.hidden_size))]

    def work(self, model: Model) -> Work:
        """What gives the answers."""
        return partial(
            model.embed,
            batch_size=self.batch_size,
            pooling=self.pooling,
            normalize=self.normalize,
            prompt=self.prompt,
            strict=self.strict,
        )

    def arrays(self, results: Sequence[Any], fields: Sequence[pa.Field]) -> list[pa.Array]:
        """The answers (None where there is none) as the columns of `fields`."""
        import pyarrow as pa

        kind = fields[0].type
        vectors = np.zeros((len(results), kind.list_size), np.float32)
        for place, result in enumerate(results):
            if result is not None:
                vectors[place] = result
        missing = pa.array([result is None for result in results])
        flat = pa.array(vectors.reshape(-1))
        return [pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=missing)]


@dataclass(frozen=True)
class Classification:
    """The best label and its score (a regression's value); the best ``top_k`` of them as well."""

    top_k: int | None = None
    batch_size: int = 32
    strict: bool = False

    verb: ClassVar[str] = "classify"

    def fields(self, model: Model, name: str) -> list[pa.Field]:
        """The new columns, save that of errors. InputError for a model without such a head."""
        import pyarrow as pa

        model.require(self.verb)
        found = [pa.field(name, pa.string()), pa.field(name + SCORE, pa.float32())]
        if self.top_k is not None or model.config.problem_type == "multi_label_classification":
            each = pa.struct([("label", pa.string()), ("score", pa.float32())])
            found.append(pa.field(name + TOP, pa.list_(each)))
        return found

    def work(self, model: Model) -> Work:
        """What gives the answers."""
        several = model.config.problem_type == "multi_label_classification"
        top_k = self.top_k if self.top_k is not None or several else 1
        return partial(model.classify, top_k=top_k, batch_size=self.batch_size, strict=self.strict)

    def arrays(self, results: Sequence[Any], fields: Sequence[pa.Field]) -> list[pa.Array]:
        """The answers (None where there is none) as the columns of `fields`."""
        import pyarrow as pa

        columns = [
            [None if result is None else result[0]["label"] for result in results],
            [None if result is None else result[0]["score"] for result in results],
            results,
        ]
        return [
            pa.array(column, field.type)
            for column, field in zip(columns[: len(fields)], fields, strict=True)
        ]


Question = Embedding | Classification


def answer_table(
    table: pa.Table, question: Question, model: Model, columns: Columns, fields: Sequence[pa.Field]
) -> tuple[pa.Table, Answers]:
    """The kept columns of a table with the answers beside them, row by row.

    A row whose text is missing or (with ``strict``) too long has no answer, and an error that says
    so.
    """
    import pyarrow as pa

    answers = Answers([None] * table.num_rows)
    texts: list[Text] = []
    places: list[int] = []
    read = [table[name].to_pylist() for name in columns.texts]
    for place, row in enumerate(zip(*read, strict=True)):
        try:
            strings = [
                as_string(value, f"'{name}'")
                for name, value in zip(columns.texts, row, strict=True)
                # A pair whose second text is missing is a text of its own.
                if value is not None or name == columns.text
            ]
        except InputError as fault:
            answers.errors[place] = str(fault)
            continue
        texts.append(strings[0] if len(strings) == 1 else (strings[0], strings[1]))
        places.append(place)
    found = answer_each(texts, question.work(model))
    for place, result in zip(places, found.results, strict=True):
        answers.results[place] = result
    answers.errors |= {places[place]: error for place, error in found.errors.items()}
    answers.truncated, answers.limit = found.truncated, found.limit
    errors = pa.array([answers.errors.get(row) for row in range(table.num_rows)], pa.string())
    kept = table.select(columns.kept(table.schema))
    for field, array in zip(fields, question.arrays(answers.results, fields), strict=True):
        kept = kept.append_column(field, array)
    return kept.append_column(pa.field(columns.result + ERROR, pa.string()), errors), answers


def output_names(columns: Columns, fields: Sequence[pa.Field]) -> list[str]:
    """The names of all new columns."""
    return [*(field.name for field in fields), columns.result + ERROR]
