"""Train/validation splits: of data in a single file, and for choosing hyperparameters.

    split.json   beside a fine-tuned model: which rows of which file were held out

The split does not depend on the seed or on how the model is trained, so that all runs train on the
same rows, and `evaluate` on the same file scores the rows that the model has not seen.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsebert.checkpoint.json_files import read_object, write_json
from sparsebert.checkpoint.staging import staged_folder
from sparsebert.errors import CheckpointError, DataError
from sparsebert.extras import need_extra
from sparsebert.tasks.data_options import DataOptions
from sparsebert.tasks.examples import Examples, examples_from, read_split, selected_rows
from sparsebert.tasks.own import find_task
from sparsebert.tasks.table import Kind

SPLIT_NAME = "split.json"
_SEED = 20_240_503


@dataclass(frozen=True)
class Division:
    """How one file was split: its name, SHA-256 and row count, and the held-out rows from 1."""

    file: str
    sha256: str
    rows: int
    share: float
    seed: int
    validation: tuple[int, ...]

    @classmethod
    def of(cls, file: Path, rows: int, share: float, held: Iterable[int]) -> Division:
        """The split of a ``file`` of so many ``rows``; ``held`` are indices, counted from 0."""
        validation = tuple(int(row) + 1 for row in sorted(held))
        return cls(file.name, file_sha256(file), rows, share, _SEED, validation)

    def is_of(self, file: Path) -> bool:
        """Whether ``file`` has the same content as the file that was split, whatever its name."""
        return self.sha256 == file_sha256(file)

    def indices(self) -> npt.NDArray[np.int64]:
        """The held-out rows, counted from 0, ascending."""
        return np.array(self.validation, np.int64) - 1

    def parts(self, examples: Examples, split: str) -> tuple[Examples, Examples]:
        """The file's examples as training and held-out rows; the latter become ``split``."""
        held = self.indices()
        train = np.setdiff1d(np.arange(len(examples)), held)
        return examples.take(train, "train"), examples.take(held, split)

    def write(self, folder: Path) -> None:
        """Write split.json into a model folder."""
        write_json(folder / SPLIT_NAME, asdict(self))


def divide(examples: Examples, file: Path, share: float) -> Division:
    """Hold out ``share`` of the rows and, in classification, about that share of each class.

    Rows with the same texts stay together, as do all rows of one query (retrieval) or one context
    (question answering). A class with two or more texts usually gets rows in both parts. DataError
    if there are too few rows for two parts.
    """
    groups: dict[int, dict[object, list[int]]] = defaultdict(lambda: defaultdict(list))
    classes: dict[object, int] = {}
    for row, key in enumerate(examples.together()):
        # A text that occurs with different labels counts under the first one.
        label = int(examples.labels[row]) if examples.task.kind is Kind.CLASSIFICATION else 0
        groups[classes.setdefault(key, label)][key].append(row)
    # The legacy generator: numpy promises that its streams never change.
    random = np.random.RandomState(_SEED)
    held: list[int] = []
    for label in sorted(groups):
        texts = list(groups[label].values())
        wanted = max(share * sum(map(len, texts)), 1)
        order = random.permutation(len(texts))[: len(texts) - 1]
        held += _nearest((texts[index] for index in order), wanted)
    if not held:
        raise DataError(
            f"{file} has too few rows to hold some out for scoring: add more, or train on all of "
            "them with --validation-share 0 (validation_share=0)."
        )
    return Division.of(file, len(examples), share, held)


def _nearest(groups: Iterable[list[int]], wanted: float) -> list[int]:
    """The rows of whole groups, as close to ``wanted`` rows as their order allows."""
    rows: list[int] = []
    for group in groups:
        if len(rows) + len(group) / 2 <= wanted:
            rows += group
    return rows


def read_division(folder: Path) -> Division | None:
    """How the training data of the model in ``folder`` was split; None without a split.json.

    Raises CheckpointError for a damaged record.
    """
    path = folder / SPLIT_NAME
    if not path.is_file():
        return None
    found: dict[str, Any] = read_object(path)
    try:
        division = Division(**{**found, "validation": tuple(map(int, found["validation"]))})
        sound = all(1 <= row <= division.rows for row in division.validation)
    except (KeyError, TypeError, ValueError) as fault:
        raise CheckpointError(f"{path} is damaged: remove it to score all rows.") from fault
    if not sound:
        raise CheckpointError(f"{path} is damaged: remove it to score all rows.")
    return division


def file_sha256(file: Path) -> str:
    """The SHA-256 of a file's content, as hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as source:
        while block := source.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


_HELD_OUT_SEED = 20_240_502  # differs from that of `selection`, whose rows are split here


def hold_out(
    task: str,
    data: str | Path | None,
    out: str | Path,
    *,
    share: float = 0.2,
    max_rows: int | None = None,
    options: DataOptions | None = None,
) -> dict[str, int]:
    """Split the train split of ``data`` into training and validation rows, in the folder ``out``.

    The validation rows are the `held_rows` of the training rows (those that ``max_rows`` selects,
    as in `finetune`). The rest are for training. Both parts keep the order of the file. Columns
    stay as they are; ``options`` name those of a user's own task. The validation split of ``data``
    is not read.

    Returns the number of rows of each split. Raises DataError, and OutputError if ``out`` cannot be
    written.
    """
    need_extra("holding rows out", "pyarrow")
    import pyarrow.parquet

    chosen = find_task(task, data, options=options)
    raw = read_split(chosen, data, "train")
    examples = examples_from(chosen, raw, "train")  # errors about a row name the original file
    kept = selected_rows(examples, max_rows)
    if kept is None:
        kept = np.arange(len(examples))
    held = held_rows(examples, kept, share)
    parts = {"train": np.setdiff1d(kept, held), chosen.validation_splits[0]: held}
    with staged_folder(out, force=False) as staging:
        for split, indices in parts.items():
            pyarrow.parquet.write_table(
                raw.table.take(indices), staging / f"{split}.parquet", compression="zstd"
            )
        counts = {split: len(indices) for split, indices in parts.items()}
        write_json(staging / "held-out.json", {"task": chosen.name, "share": share, "rows": counts})
    return counts


def held_rows(
    examples: Examples, rows: npt.NDArray[np.int64], share: float
) -> npt.NDArray[np.int64]:
    """About ``share`` of ``rows`` (indices of examples), at least one: indices, ascending.

    The choice depends only on the number of rows, on which of them stay together as in `divide`,
    and on which have the last rows of a label, as each label that occurs keeps a row among the
    rest. DataError if there are too few rows for two parts.
    """
    if not 0 < share < 1:
        raise DataError(f"share must be between 0 and 1, not {share}.")
    if len(rows) < 2:
        raise DataError(
            f"{examples.source} has {len(rows)} row to split: holding some out needs at least two."
        )
    count = min(max(round(len(rows) * share), 1), len(rows) - 1)
    # The legacy generator: numpy promises that its streams never change.
    order = rows[np.random.RandomState(_HELD_OUT_SEED).permutation(len(rows))]
    together, labels = examples.together(), _labels(examples)
    groups: dict[object, list[int]] = defaultdict(list)
    for row in order:
        groups[together[row]].append(int(row))
    free: list[list[int]] = []
    kept: set[int] = set()
    for group in reversed(groups.values()):  # the last are the least likely to be held out
        found = {label for row in group for label in labels[row]}
        if found <= kept:
            free.append(group)
        kept |= found
    held = np.sort(np.array(_nearest(reversed(free), count), np.int64))
    if not 0 < len(held) < len(rows):
        raise DataError(
            f"{examples.source} has too few different texts to hold some out: use more rows."
        )
    return held


def _labels(examples: Examples) -> list[list[int]]:
    """The labels of each row, as indices; none for a task whose labels have no names."""
    kind = examples.task.kind
    if kind is Kind.CLASSIFICATION:
        return [[label] for label in examples.labels.tolist()]
    if kind is Kind.LABEL_SETS:
        return [np.flatnonzero(row).tolist() for row in examples.labels]
    if kind is Kind.TOKENS:
        return [words.labels.tolist() for words in examples.words]
    return [[] for _ in examples.texts]
