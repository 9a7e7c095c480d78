"""A folder of seeds: ``seed-1``, ``seed-2``, ..., the same step with different seeds.

Each is an ordinary model folder. What they have in common is stored beside them, in files of the
steps that made them (``seeds.json``, ``evaluation.json``).
"""

from __future__ import annotations

import re
from pathlib import Path

from sparsebert.checkpoint.config import CONFIG_NAME
from sparsebert.errors import InputError

SEEDS_NAME = "seeds.json"

_NAME = re.compile(r"seed-(0|[1-9]\d{0,8})", re.ASCII)


def parse_seeds(text: str) -> tuple[int, ...]:
    """``5`` means seeds 1 to 5, ``1,3,7`` these three, ``7,`` only 7. InputError otherwise."""
    words = [word.strip() for word in text.removesuffix(",").split(",")]
    numbers = [int(word) for word in words if re.fullmatch(r"\d{1,9}", word, re.ASCII)]
    if len(numbers) != len(words) or len(set(numbers)) != len(numbers) or text.strip() == "0":
        raise InputError(
            f"seeds are a count (5) or a list of different integers, none negative (1,3,7), not "
            f"{text!r}."
        )
    return tuple(numbers) if "," in text else tuple(range(1, numbers[0] + 1))


def seed_folder(folder: Path, seed: int) -> Path:
    """Where the model of one seed belongs."""
    return folder / f"seed-{seed}"


def seed_folders(folder: str | Path) -> dict[int, Path]:
    """The model folders of all seeds in ``folder``, by seed, ascending; empty if there are none."""
    root = Path(folder)
    if not root.is_dir():
        return {}
    found = {
        int(match[1]): path
        for path in root.iterdir()
        if (match := _NAME.fullmatch(path.name)) and (path / CONFIG_NAME).is_file()
    }
    return dict(sorted(found.items()))
