"""What a user says of data that does not speak for itself: columns, labels, rows to hold out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sparsebert.errors import DataError


@dataclass(frozen=True)
class DataOptions:
    """How to read a task's files, where names and types leave it open.

    ``text_column``, ``pair_column`` (the second text of a pair) and ``label_column`` name columns.
    ``regression`` says that the labels of a custom task are numbers to predict, and not classes.
    ``positive_label`` is the class of a custom task that F1 is of. ``validation_share`` of the rows
    are held out to score on where data comes in one file that is named after no split; 0 trains on
    all of them.
    """

    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    regression: bool = False
    positive_label: str | None = None
    validation_share: float = 0.2

    def __post_init__(self) -> None:
        if self.pair_column is not None and self.text_column is None:
            raise DataError("pair_column is the second text's column: name text_column as well.")
        if self.positive_label is not None and self.regression:
            raise DataError("positive_label is a class, and a regression has none: leave one out.")
        if not 0 <= self.validation_share < 1:
            raise DataError(
                f"validation_share must be at least 0 and below 1, not {self.validation_share}."
            )

    @property
    def text_columns(self) -> tuple[str, ...] | None:
        """The columns of the texts, None where they are not named."""
        if self.text_column is None:
            return None
        return tuple(name for name in (self.text_column, self.pair_column) if name is not None)

    def given(self) -> dict[str, Any]:
        """The options that are not left at their defaults."""
        return {
            name: value for name, value in asdict(self).items() if value != getattr(_DEFAULT, name)
        }


_DEFAULT = DataOptions()
DATA_OPTIONS = tuple(each.name for each in fields(DataOptions))


def split_options(options: Mapping[str, Any]) -> tuple[DataOptions, dict[str, Any]]:
    """Named options parted into those on the data and all others."""
    data = {name: value for name, value in options.items() if name in DATA_OPTIONS}
    others = {name: value for name, value in options.items() if name not in DATA_OPTIONS}
    return DataOptions(**data), others
