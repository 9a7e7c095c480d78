"""The columns of a job: those with texts, those to keep, and the new ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsebert.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

SCORE, TOP, ERROR = "_score", "_top", "_error"
SEPARATELY = (
    "Keep only columns that fit with --keep-columns (keep_columns=), or run the files as separate "
    "jobs."
)


@dataclass(frozen=True)
class Columns:
    """Names of a job's columns.

    ``text`` has the texts and ``pair`` the second texts of pairs; ``keep`` are copied to the output
    (None: all). ``result`` is the new column; the job adds ``result_error`` and the other columns
    of its operation (``result_score``, ``result_top``).
    """

    text: str = "text"
    pair: str | None = None
    keep: tuple[str, ...] | None = None
    result: str = "embedding"

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns that are read as texts."""
        return (self.text,) if self.pair is None else (self.text, self.pair)

    def of_file(self, schema: pa.Schema, file: str) -> pa.Schema:
        """The columns of a file that the job reads, without metadata.

        DataError, naming ``file``, if a column of texts is missing, occurs twice or holds no text.
        """
        import pyarrow as pa

        wanted = schema.names if self.keep is None else [*self.texts, *self.keep]
        fields = []
        for name in dict.fromkeys(wanted):
            indices = schema.get_all_field_indices(name)
            if len(indices) > 1:
                raise DataError(f"{file} has {len(indices)} columns '{name}': rename all but one.")
            if indices:
                fields.append(schema.field(indices[0]))
        found = pa.schema(fields)
        for name, option in zip(self.texts, ("text", "pair"), strict=False):
            if name not in found.names:
                raise DataError(
                    f"{file} has no column '{name}' (it has {', '.join(schema.names[:20])}): name "
                    f"the one with the texts with --{option}-column ({option}_column=)."
                )
            index = found.get_field_index(name)
            if not _is_text(found.field(index).type):
                raise DataError(
                    f"column '{name}' of {file} is {found.field(index).type}, but must hold text."
                )
            found = found.set(index, pa.field(name, pa.string()))
        return found

    def of_job(self, schemas: Sequence[pa.Schema], files: Sequence[str]) -> pa.Schema:
        """The unified schema of all files: a column that a file lacks is null there.

        DataError, naming file and column, if a column is of different types, would lose digits of
        decimals to floating point, or holds nothing that Parquet can store.
        """
        import pyarrow as pa

        known = schemas[0]
        for schema, file in zip(schemas[1:], files[1:], strict=True):
            if schema.equals(known):
                continue
            try:
                known = pa.unify_schemas([known, schema], promote_options="permissive")
            except pa.ArrowException as fault:
                raise DataError(
                    f"the columns of {file} do not fit those of the files before it, from "
                    f"{files[0]} on: {fault}. {SEPARATELY}"
                ) from fault
        for schema, file in zip(schemas, files, strict=True):
            for field in schema if not schema.equals(known) else ():
                if _contains(field.type, pa.types.is_decimal) and not _contains(
                    known.field(field.name).type, pa.types.is_decimal
                ):
                    raise DataError(
                        f"column '{field.name}' of {file} has decimals, but that of another file "
                        f"has floating point, in which digits of them are lost. {SEPARATELY}"
                    )
        for name in self.keep or ():
            if name not in known.names:
                raise DataError(
                    f"there is no column '{name}' to keep; the columns are "
                    f"{', '.join(known.names[:20])}."
                )
        for each in known:
            if _contains(each.type, _is_childless):
                raise DataError(
                    f"column '{each.name}' contains objects without fields, which Parquet cannot "
                    "store: leave it out with --keep-columns (keep_columns=)."
                )
        return pa.schema(
            [
                pa.field(each.name, pa.string()) if pa.types.is_null(each.type) else each
                for each in known
            ]
        )

    def kept(self, schema: pa.Schema) -> list[str]:
        """The input columns that go into the output, in their order there."""
        names: list[str] = schema.names
        return names if self.keep is None else list(dict.fromkeys(self.keep))

    def check_free(self, schema: pa.Schema, new: Sequence[str]) -> None:
        """DataError if a new column has the name of a kept one."""
        taken = [name for name in new if name in self.kept(schema)]
        if taken:
            raise DataError(
                f"the input already has a column '{taken[0]}': rename the new one with "
                "--output-column (output_column=), or leave out the old one with --keep-columns "
                "(keep_columns=)."
            )


def _contains(kind: pa.DataType, matches: Callable[[pa.DataType], bool]) -> bool:
    """Whether a type or one that is nested in it matches."""
    return matches(kind) or any(
        _contains(kind.field(index).type, matches) for index in range(kind.num_fields)
    )


def _is_childless(kind: pa.DataType) -> bool:
    """Whether a type is a struct without fields, as from ``{}`` in every line."""
    import pyarrow as pa

    return bool(pa.types.is_struct(kind) and not kind.num_fields)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_string = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(is_string or pa.types.is_string_view(kind) or pa.types.is_null(kind))
