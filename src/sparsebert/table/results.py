"""results.json: one entry for each row of the table and each metric of each task.

    {"model": "all-MiniLM-L6-v2", "task": "stsb", "row": "best-int8", "metric": "pearson",
     "seeds": [86.2, 86.4], "train_rows": 5749, "command": "sparsebert ...",
     "split": "validation", "run": "stsb", "seed_numbers": [1, 2]}

``seeds`` holds one score per seed, in percent. ``model`` (the model that all began from),
``train_rows``, ``command`` and the last three may be left out: ``split`` distinguishes the two
halves of MNLI, and ``run`` two results on one task (``sst2`` and ``sst2-full``). Seeds from
different machines or days may be in separate files, which `merge` combines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.json_files import read_json
from sparsebert.errors import CheckpointError, DataError
from sparsebert.table.commands import with_seeds, without_seeds
from sparsebert.tasks.table import TASKS


@dataclass(frozen=True)
class Result:
    """The scores of one row on one metric, one for each seed.

    ``train_rows`` is None if the number was not recorded.
    """

    task: str
    row: str
    metric: str
    seeds: tuple[float, ...]
    train_rows: int | None
    command: str
    split: str
    run: str
    seed_numbers: tuple[int, ...]
    model: str = ""
    """The pretrained model that it began from, as named in the lineage; empty if unknown."""

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What identifies a result among all results."""
        return (self.model, self.row, self.run, self.split, self.metric)

    def numbers(self) -> str:
        """The seeds as text: ``1, 2``."""
        return ", ".join(map(str, self.seed_numbers))

    def of_seeds(self, numbers: Sequence[int]) -> Result | None:
        """The result of these seeds only, in their order; None if one of them is missing."""
        scores = dict(zip(self.seed_numbers, self.seeds, strict=True))
        if not scores.keys() >= set(numbers):
            return None
        return replace(self, seed_numbers=tuple(numbers), seeds=tuple(scores[n] for n in numbers))

    def as_dict(self) -> dict[str, Any]:
        """An entry of results.json."""
        return {
            "model": self.model,
            "task": self.task,
            "row": self.row,
            "metric": self.metric,
            "seeds": [round(score, 4) for score in self.seeds],
            "train_rows": self.train_rows,
            "command": self.command,
            "split": self.split,
            "run": self.run,
            "seed_numbers": list(self.seed_numbers),
        }


def read_results(path: Path) -> list[Result]:
    """Read a results.json. DataError names an invalid entry."""
    try:
        found = read_json(path)
    except CheckpointError as fault:
        raise DataError(str(fault)) from fault
    if not isinstance(found, list):
        raise DataError(f"{path} must hold a list of results, not {type(found).__name__}.")
    return [_result(line, f"{path}, result {number}") for number, line in enumerate(found, 1)]


def _result(line: object, where: str) -> Result:
    if not isinstance(line, dict):
        raise DataError(f"{where} is not an object.")
    task = _text(line, "task", where)
    default = TASKS[task].validation_splits[0] if task in TASKS else "validation"
    seeds = tuple(_score(score, where) for score in _list(line, "seeds", where))
    if not seeds:
        raise DataError(f"{where}: 'seeds' is empty.")
    numbers = line.get("seed_numbers", list(range(1, len(seeds) + 1)))
    if not isinstance(numbers, list) or not all(_is_count(number) for number in numbers):
        raise DataError(f"{where}: 'seed_numbers' must be a list of non-negative integers.")
    if len(numbers) != len(seeds) or len(set(numbers)) != len(numbers):
        raise DataError(f"{where}: 'seed_numbers' must have one distinct seed for each score.")
    rows = line.get("train_rows")
    if rows is not None and not _is_count(rows):
        raise DataError(f"{where}: 'train_rows' must be a non-negative integer.")
    return Result(
        task=task,
        row=_text(line, "row", where),
        metric=_text(line, "metric", where),
        seeds=seeds,
        train_rows=rows,
        command=_text({"command": "", **line}, "command", where, empty=True),
        split=_text({"split": default, **line}, "split", where),
        run=_text({"run": task, **line}, "run", where),
        seed_numbers=tuple(numbers),
        model=_text({"model": "", **line}, "model", where, empty=True),
    )


def score_value(value: object) -> float | None:
    """A score in percent (-100 to 100: correlations may be negative) as a float, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and -100 <= value <= 100 else None


def _score(value: object, where: str) -> float:
    score = score_value(value)
    if score is None:
        raise DataError(f"{where}: {value!r} is not a score in percent.")
    return score


def _text(line: Mapping[str, Any], name: str, where: str, *, empty: bool = False) -> str:
    value = line.get(name)
    if not isinstance(value, str) or not (value or empty):
        raise DataError(f"{where}: '{name}' must be text.")
    return value


def _list(line: Mapping[str, Any], name: str, where: str) -> list[Any]:
    value = line.get(name)
    if not isinstance(value, list):
        raise DataError(f"{where}: '{name}' must be a list.")
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def merge(sources: Sequence[Sequence[Result]]) -> tuple[list[Result], list[str]]:
    """Each result with the seeds of all sources, in the order of their numbers, and notes.

    If two sources have a score for the same seed, the later one counts. A note names results whose
    seeds were made by different commands; the first command is kept, unless all of its seeds were
    replaced. Raises DataError if they were trained on different numbers of rows.
    """
    merged: dict[tuple[str, ...], Result] = {}
    notes: dict[str, None] = {}
    for results in sources:
        for later in results:
            earlier = merged.get(later.key)
            if earlier is None or set(earlier.seed_numbers) <= set(later.seed_numbers):
                merged[later.key] = later
                continue
            where = f"{later.row}, {later.run}"
            if earlier.train_rows != later.train_rows:
                raise DataError(
                    f"{where}: seeds {earlier.numbers()} were trained on {earlier.train_rows} rows "
                    f"and seeds {later.numbers()} on {later.train_rows}: give one of them a "
                    "different folder name or 'run'."
                )
            if without_seeds(earlier.command) != without_seeds(later.command):
                notes[
                    f"{where}: seeds {earlier.numbers()} and seeds {later.numbers()} were made by "
                    "different commands; the first is shown."
                ] = None
            merged[later.key] = _together(earlier, later)
    return list(merged.values()), list(notes)


def _together(earlier: Result, later: Result) -> Result:
    scores = dict(zip(earlier.seed_numbers, earlier.seeds, strict=True))
    scores |= zip(later.seed_numbers, later.seeds, strict=True)
    numbers = tuple(sorted(scores))
    return replace(
        earlier,
        seeds=tuple(scores[number] for number in numbers),
        seed_numbers=numbers,
        command=with_seeds(earlier.command, later.command, numbers),
    )
