"""Results of several places as one: seeds of different machines or days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sparsebert.errors import DataError
from sparsebert.table.commands import with_seeds, without_seeds
from sparsebert.table.results import Result


def merge(places: Sequence[Sequence[Result]]) -> tuple[list[Result], list[str]]:
    """Each result with the seeds of all places, in the order of their numbers; and notes.

    Where two places have a score for the same seed, the later place's counts. A note tells of
    results whose seeds were made by different commands: the first one's is kept, unless none of its
    seeds are. Raises DataError if they were trained on different numbers of rows.
    """
    merged: dict[tuple[str, str, str, str], Result] = {}
    notes: dict[str, None] = {}
    for results in places:
        for later in results:
            place = (later.row, later.run, later.split, later.metric)
            earlier = merged.get(place)
            if earlier is None or set(earlier.seed_numbers) <= set(later.seed_numbers):
                merged[place] = later
                continue
            where = f"{later.row}, {later.run}"
            if earlier.train_rows != later.train_rows:
                raise DataError(
                    f"{where}: seeds {earlier.numbers()} were trained on {earlier.train_rows} rows "
                    f"and seeds {later.numbers()} on {later.train_rows}: give one of them another "
                    "folder name or 'run'."
                )
            if without_seeds(earlier.command) != without_seeds(later.command):
                notes[
                    f"{where}: seeds {earlier.numbers()} and seeds {later.numbers()} were made by "
                    "different commands; the first is shown."
                ] = None
            merged[place] = _together(earlier, later)
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
