"""results.json: one line for each row of the table and each metric of each task.

    {"task": "stsb", "row": "best-int8", "metric": "pearson", "seeds": [86.2, 86.4],
     "train_rows": 5749, "command": "sparsebert ...",
     "split": "validation", "run": "stsb", "seed_numbers": [1, 2]}

``seeds`` holds one score a seed, in percent. The last three may be left out: ``split`` tells the
two halves of MNLI apart, ``run`` two results on one task (``sst2`` and ``sst2-full``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsebert.checkpoint.documents import read_json
from sparsebert.errors import CheckpointError, DataError
from sparsebert.tasks.table import TASKS


@dataclass(frozen=True)
class Result:
    """The scores of one row on one metric, one for each seed.

    ``train_rows`` is None where nobody wrote down how many there were.
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

    def numbers(self) -> str:
        """The seeds as a sentence names them: ``1, 2``."""
        return ", ".join(map(str, self.seed_numbers))

    def as_dict(self) -> dict[str, Any]:
        """A line of results.json."""
        return {
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
    """Read a results.json. DataError names the line that is none."""
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
        raise DataError(f"{where}: 'seed_numbers' must be a list of whole numbers.")
    if len(numbers) != len(seeds) or len(set(numbers)) != len(numbers):
        raise DataError(f"{where}: 'seed_numbers' must name each score's seed, and each once.")
    rows = line.get("train_rows")
    if rows is not None and not _is_count(rows):
        raise DataError(f"{where}: 'train_rows' must be a whole number.")
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
    )


def score_value(value: object) -> float | None:
    """A score from 0 to 100 (Pearson and Matthews may go below) as a float; None if it is none."""
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
