"""Finds the files of a task's splits by their names.

``data`` is a folder with files named after the splits, a single file, or None for the hub. In a
folder, the file of a split is ``SPLIT.parquet`` (or another known ending) if there is one, else
the parts of a sharded split (``SPLIT-00000-of-00002.parquet``, optionally followed by a hash), else
the one file whose name starts with the split's name as a word (``train_subset.parquet``, not
``trainers.parquet``). If several files could be meant, that is an error. The validation split may
be called ``dev``, ``valid`` or ``val``, and the train split ``training``.
A single table that is not named after a split, by itself or alone in its folder, is undivided data.
The task decides which endings count as tables (``types``): those of CoNLL files do for named
entities only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sparsebert.errors import DataError

TABLE_TYPES = (".parquet", ".csv", ".tsv", ".json", ".jsonl", ".ndjson")
CONLL_TYPES = (".conll", ".bio", ".iob", ".iob2", ".txt", ".tsv")
TAGGED_TYPES = (".conll", ".bio", ".iob", ".iob2")
"""Endings that only CoNLL files have; files with the others may hold anything."""
WORD_TYPES = (".parquet", ".json", ".jsonl", ".ndjson", *CONLL_TYPES)
"""Endings of files with rows of labelled words."""

GZIP = ".gz"
_VALIDATION_NAMES = ("dev", "valid", "val")
_SPLITS = ("train", "validation", "test")


def file_type(path: Path, types: Sequence[str] = TABLE_TYPES) -> str:
    """The ending that says how to read a file, without ``.gz``; "" if it is not in ``types``."""
    name = path.name.lower()
    suffix = Path(name.removesuffix(GZIP)).suffix
    known = suffix in types and not (suffix == ".parquet" and name.endswith(GZIP))
    return suffix if known else ""


def split_files(data: Path, split: str, types: Sequence[str] = TABLE_TYPES) -> list[Path]:
    """The files of one split, in reading order; empty if there are none.

    All rows of undivided data count as training rows here. Raises DataError if ``data`` does not
    exist or has an unknown type, if several files could be the split, or if some of its parts are
    missing.
    """
    if data.is_file():
        if not file_type(data, types):
            raise DataError(
                f"{data} has an unknown file type: use one of {', '.join(types)} (all but the "
                "first also gzipped, .gz)."
            )
        return [data]
    if not data.is_dir():
        raise DataError(f"{data} does not exist: pass a data folder or file.")
    known = tables_in(data, types)
    exact = [path for path in known if _stem(path) in split_names(split)]
    if exact:
        return _only(exact, data, split)
    names = "|".join(map(re.escape, split_names(split)))
    shard = re.compile(rf"({names})-(\d{{5}})-of-(\d{{5}})(-[0-9a-f]{{16}})?")
    shards = [(path, found) for path in known if (found := shard.fullmatch(_stem(path)))]
    if shards:
        count = int(shards[0][1][3])
        numbers = [int(found[2]) for _, found in shards]
        if numbers != list(range(count)) or any(int(found[3]) != count for _, found in shards):
            raise DataError(
                f"{data} contains only some parts of {split}: {len(shards)} of {count}."
            )
        return [path for path, _ in shards]
    prefixed = [path for path in known if is_of_split(path, split)]
    if not prefixed and split == "train" and (alone := undivided_file(data, types)):
        return [alone]
    return _only(prefixed, data, split) if prefixed else []


def is_of_split(path: Path, split: str) -> bool:
    """Whether a file's name begins with the word of the split, or with an alternative to it."""
    names = "|".join(map(re.escape, split_names(split)))
    return re.match(rf"({names})(?![^\W\d_])", _stem(path)) is not None


def undivided_file(data: str | Path | None, types: Sequence[str] = TABLE_TYPES) -> Path | None:
    """The only table in ``data``, if it is not named after a split; else None."""
    if data is None:
        return None
    path = Path(data)
    found = [path] if path.is_file() else tables_in(path, types) if path.is_dir() else []
    alone = len(found) == 1 and not any(is_of_split(found[0], split) for split in _SPLITS)
    return found[0] if alone else None


def no_split(data: Path, split: str, types: Sequence[str] = TABLE_TYPES) -> DataError:
    """The error for a folder without a file for a split."""
    there = ", ".join(path.name for path in tables_in(data, types)[:8]) if data.is_dir() else ""
    has = f" (its tables are {there})" if there else ""
    return DataError(f"{data} holds no file for the split {split}: name one {split}.parquet{has}.")


def tables_in(folder: Path, types: Sequence[str] = TABLE_TYPES) -> list[Path]:
    """The files of known types in a folder, by name."""
    return sorted(path for path in folder.iterdir() if file_type(path, types) and path.is_file())


def split_names(split: str) -> Sequence[str]:
    """The names that a split's file may have, the split's own first."""
    if split == "train":
        return (split, "training")
    rest = split.removeprefix("validation")
    others = () if rest == split else _VALIDATION_NAMES
    return (split, *(f"{other}{rest}" for other in others))


def _stem(path: Path) -> str:
    """A file's name in lower case, without its known ending and ``.gz``."""
    name = path.name.lower().removesuffix(GZIP)
    return name.removesuffix(file_type(path, (*TABLE_TYPES, *CONLL_TYPES)))


def _only(candidates: list[Path], data: Path, split: str) -> list[Path]:
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates)
        raise DataError(
            f"{data} holds several files for the split {split} ({names}): keep one, or name it "
            f"{split}{Path(candidates[0].name.lower().removesuffix(GZIP)).suffix}."
        )
    return candidates
