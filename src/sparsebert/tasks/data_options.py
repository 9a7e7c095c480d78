"""Options for reading a task's files: columns, the kind of labels, held-out rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from sparsebert.errors import DataError
from sparsebert.options import Options, declarations, option


@dataclass(frozen=True)
class DataOptions(Options):
    """How to read a task's files where column names and types leave it open.

    - ``text_column``, ``pair_column`` (the second text of a pair) and ``label_column`` name
      columns.
    - ``label_columns``, for several labels per row, names a column of zeros and ones for each
      label.
    - ``threshold`` is the probability from which a label counts, for several labels per row. For
      SQuAD v2, a question has no answer if that is likelier than the best answer by more than
      ``threshold``, a difference of logits.
    - ``label_names`` are what the numbers in lists of labels stand for.
    - ``regression`` says that the labels of a custom task are numbers to predict, not classes.
    - ``positive_label`` is the class of a custom task for which F1 is computed.
    - ``validation_share`` is the share of rows held out for scoring if the data is a single file
      that is not named after a split; 0 trains on all rows.

    Names in ``label_columns`` and ``label_names`` are separated by commas.

    Raises DataError for a value that has the wrong type or is out of range, and for options that
    make no sense together.
    """

    error = DataError
    purpose = "reading data"

    text_column: str | None = option(
        None,
        metavar="NAME",
        help="Column with the texts.",
        shown_default="the task's; else text or sentence, for pairs text1 or sentence1",
    )
    pair_column: str | None = option(
        None,
        metavar="NAME",
        help="Column with the second text of a pair.",
        shown_default="the task's; else text2 or sentence2",
    )
    label_column: str | None = option(
        None,
        metavar="NAME",
        help="Column with the labels.",
        shown_default="the task's; else label, score for numbers, or labels for lists",
    )
    label_columns: str | None = option(
        None,
        metavar="NAME,NAME,...",
        help="With --task custom, for rows with several labels: one column of 0 and 1 per label.",
        shown_default="lists of names in the label column",
    )
    threshold: float | None = option(
        None,
        metavar="NUMBER",
        help="For rows with several labels: the probability from which a label counts. For "
        'squad_v2: by how much, in logits, "no answer" must exceed the best answer.',
        shown_default="that of the training run; else 0.5, or 0 for squad_v2",
    )
    label_names: str | None = option(
        None,
        metavar="NAME,NAME,...",
        help="For labels given as lists of numbers (also with --task ner): the names they stand "
        "for.",
        shown_default="the model's, or those in the file itself",
    )
    regression: bool = option(
        False,
        help="With --task custom: the labels are numbers to predict, not class names.",
    )
    positive_label: str | None = option(
        None,
        metavar="LABEL",
        help="With --task custom: the class whose F1 is reported.",
        shown_default="1 or true against 0 or false, else the mean over the classes",
    )
    validation_share: float = option(
        0.2,
        least=0,
        below=1,
        help="If the data is one file that is not named after a split: the share of each class to "
        "hold out for scoring, 0 to below 1; 0 trains on all rows.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pair_column is not None and self.text_column is None:
            raise DataError("pair_column names the second text's column: pass text_column as well.")
        if self.positive_label is not None and self.regression:
            raise DataError(
                "positive_label is a class, but a regression has no classes: leave one of the two "
                "out."
            )
        if self.flag_columns is not None and self.label_column is not None:
            raise DataError("label_columns and label_column exclude each other: pass only one.")
        if self.names is not None and self.regression:
            raise DataError(
                "label_names name classes, but a regression has no classes: leave one of the two "
                "out."
            )

    def refuse(self, *names: str, why: str) -> None:
        """DataError if one of these options is given; ``why`` continues its name."""
        for name in names:
            if name in self.given():
                raise DataError(f"{name} {why}: leave it out.")

    @property
    def flag_columns(self) -> tuple[str, ...] | None:
        """The names in `label_columns`; None if it is not set."""
        return None if self.label_columns is None else listed("label_columns", self.label_columns)

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names in `label_names`; None if it is not set."""
        return None if self.label_names is None else listed("label_names", self.label_names)

    @property
    def text_columns(self) -> tuple[str, ...] | None:
        """The names of the text columns; None if they are not set."""
        if self.text_column is None:
            return None
        return tuple(name for name in (self.text_column, self.pair_column) if name is not None)


def listed(name: str, value: str) -> tuple[str, ...]:
    """Comma-separated names as a tuple. DataError for an empty or repeated one."""
    names = tuple(part.strip() for part in value.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise DataError(f"{name} must be distinct names separated by commas, not {value!r}.")
    return names


class DataKeywords(TypedDict, total=False):
    """`DataOptions` as keyword arguments, for type checkers and editors."""

    text_column: str | None
    pair_column: str | None
    label_column: str | None
    label_columns: str | None
    threshold: float | None
    label_names: str | None
    regression: bool
    positive_label: str | None
    validation_share: float


def split_options(options: Mapping[str, Any]) -> tuple[DataOptions, dict[str, Any]]:
    """Keyword options, separated into data options and all others."""
    names = declarations(DataOptions)
    data = {name: value for name, value in options.items() if name in names}
    others = {name: value for name, value in options.items() if name not in names}
    return DataOptions(**data), others
