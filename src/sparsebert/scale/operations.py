"""A job's operation, embedding or classification, and its results as Arrow columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sparsebert.errors import InputError
from sparsebert.inference.answer_each import Answers, Work, answer_each
from sparsebert.inference.embedding_model import PoolingMode
from sparsebert.inference.embeddings import NUMPY_TYPES, EmbeddingType, embedding_width
from sparsebert.inference.model import Model
from sparsebert.inference.texts import Text, as_string
from sparsebert.scale.columns import ERROR, SCORE, TOP, Columns

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Embedding:
    """An embedding: a fixed-size list of numbers of the type ``output``."""

    pooling: PoolingMode | None = None
    normalize: bool | None = None
    prompt: str | None = None
    prompt_name: str | None = None
    dimensions: int | None = None
    output: EmbeddingType = "float32"
    batch_size: int = 32
    strict: bool = False

    verb: ClassVar[str] = "embed"

    def fields(self, model: Model, name: str) -> list[pa.Field]:
        """The new columns, except that of errors. InputError for options the model cannot take."""
        import pyarrow as pa

        self.work(model)([])  # checks the options
        width = embedding_width(model.embedding_width(self.pooling), self.dimensions, self.output)
        number = pa.from_numpy_dtype(np.dtype(NUMPY_TYPES[self.output]))
        return [pa.field(name, pa.list_(number, width))]

    def work(self, model: Model) -> Work:
        """The function from texts to results."""
        return partial(
            model.embed,
            batch_size=self.batch_size,
            pooling=self.pooling,
            normalize=self.normalize,
            prompt=self.prompt,
            prompt_name=self.prompt_name,
            dimensions=self.dimensions,
            output=self.output,
            strict=self.strict,
        )

    def arrays(self, results: Sequence[Any], fields: Sequence[pa.Field]) -> list[pa.Array]:
        """Results (None for a failed row) as the columns of `fields`."""
        import pyarrow as pa

        kind = fields[0].type
        vectors = np.zeros((len(results), kind.list_size), NUMPY_TYPES[self.output])
        for index, result in enumerate(results):
            if result is not None:
                vectors[index] = result
        missing = pa.array([result is None for result in results])
        flat = pa.array(vectors.reshape(-1))
        return [pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=missing)]


@dataclass(frozen=True)
class Classification:
    """The best label and its score (or a regression's value), and optionally the best ``top_k``."""

    top_k: int | None = None
    batch_size: int = 32
    strict: bool = False

    verb: ClassVar[str] = "classify"

    def fields(self, model: Model, name: str) -> list[pa.Field]:
        """The new columns, except that of errors. InputError for a model without such a head."""
        import pyarrow as pa

        model.require(self.verb)
        found = [pa.field(name, pa.string()), pa.field(name + SCORE, pa.float32())]
        if self.top_k is not None or model.config.problem_type == "multi_label_classification":
            each = pa.struct([("label", pa.string()), ("score", pa.float32())])
            found.append(pa.field(name + TOP, pa.list_(each)))
        return found

    def work(self, model: Model) -> Work:
        """The function from texts to results."""
        several = model.config.problem_type == "multi_label_classification"
        top_k = self.top_k if self.top_k is not None or several else 1
        return partial(model.classify, top_k=top_k, batch_size=self.batch_size, strict=self.strict)

    def arrays(self, results: Sequence[Any], fields: Sequence[pa.Field]) -> list[pa.Array]:
        """Results (None for a failed row) as the columns of `fields`."""
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


Operation = Embedding | Classification


def answer_table(
    table: pa.Table,
    operation: Operation,
    model: Model,
    columns: Columns,
    fields: Sequence[pa.Field],
) -> tuple[pa.Table, Answers]:
    """The kept columns of a table with the columns of the results.

    A row whose text is missing or (with ``strict``) too long has an error message and no result.
    """
    import pyarrow as pa

    answers = Answers([None] * table.num_rows)
    texts: list[Text] = []
    indices: list[int] = []
    read = [table[name].to_pylist() for name in columns.texts]
    for index, row in enumerate(zip(*read, strict=True)):
        try:
            strings = [
                as_string(value, f"'{name}'")
                for name, value in zip(columns.texts, row, strict=True)
                # A pair without its second text is taken as a single text.
                if value is not None or name == columns.text
            ]
        except InputError as fault:
            answers.errors[index] = str(fault)
            continue
        texts.append(strings[0] if len(strings) == 1 else (strings[0], strings[1]))
        indices.append(index)
    found = answer_each(texts, operation.work(model))
    for index, result in zip(indices, found.results, strict=True):
        answers.results[index] = result
    answers.errors |= {indices[index]: error for index, error in found.errors.items()}
    answers.truncated, answers.limit = found.truncated, found.limit
    errors = pa.array([answers.errors.get(row) for row in range(table.num_rows)], pa.string())
    kept = table.select(columns.kept(table.schema))
    for field, array in zip(fields, operation.arrays(answers.results, fields), strict=True):
        kept = kept.append_column(field, array)
    return kept.append_column(pa.field(columns.result + ERROR, pa.string()), errors), answers


def output_names(columns: Columns, fields: Sequence[pa.Field]) -> list[str]:
    """The names of all new columns."""
    return [*(field.name for field in fields), columns.result + ERROR]
