"""Damage to a packed folder, a byte or a cut at a time: what of it changes answers without a word?

python tests/support/changed_bytes.py          every byte of four small folders, and every length
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsebert.errors import SparsebertError
from sparsebert.inference.loading import load
from sparsebert.packing import pack
from sparsebert.pruning import prune

TEXTS = ["A small film.", ("good actors", "no story"), "the end of a story"]


class Damage(NamedTuple):
    """Of one file: the byte at ``offset`` changed by XOR with ``mask``, or all from it on gone."""

    file: str
    offset: int
    mask: int | None

    def of(self, content: bytes) -> bytes:
        if self.mask is None:
            return content[: self.offset]
        changed = bytearray(content)
        changed[self.offset] ^= self.mask
        return bytes(changed)


def write_packed(dense: Path, folder: Path, *, dtype: str) -> Path:
    """A pruned and packed model."""
    prune(dense, folder / "sparse", force=True)
    pack(folder / "sparse", folder / dtype, dtype=dtype)
    return folder / dtype


def covered(folder: Path) -> list[str]:
    """The files that answers could depend on: all but cards."""
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in files if not name.endswith(".md"))


def some_damage(folder: Path, *, each: int, seed: int) -> Iterator[Damage]:
    """So much of every file, one cut in four; half of what is in weights is in their header."""
    chosen = random.Random(seed)
    for file in covered(folder):
        content = (folder / file).read_bytes()
        header = int.from_bytes(content[:8], "little") if file.endswith(".safetensors") else 0
        for number in range(each):
            end = header + 8 if header and number % 2 else len(content)
            mask = None if number % 4 == 3 else chosen.randrange(1, 256)
            yield Damage(file, chosen.randrange(end), mask)


def every_damage(folder: Path, *, seed: int) -> Iterator[Damage]:
    """Of every byte one bit and a random change, and every shorter length."""
    chosen = random.Random(seed)
    for file in covered(folder):
        for offset in range((folder / file).stat().st_size):
            for mask in (1 << offset % 8, chosen.randrange(1, 256), None):
                yield Damage(file, offset, mask)


def try_damage(folder: Path, damage: Iterable[Damage]) -> Counter[str]:
    """How often it was ``refused``, without effect (``same``), or ``silent``: another answer.

    What is raised besides SparsebertError comes through. ``folder`` is left as it was.
    """
    expected, found = _answers(folder), Counter[str]()
    for each in damage:
        path = folder / each.file
        content = path.read_bytes()
        changed = each.of(content)
        if changed == content:
            continue
        path.write_bytes(changed)
        try:
            same = np.array_equal(_answers(folder), expected)
            found["same" if same else "silent"] += 1
            if not same:
                print(f"silent: {each} in {folder}", file=sys.stderr)
        except SparsebertError:
            found["refused"] += 1
        finally:
            path.write_bytes(content)
    return found


def _answers(folder: Path) -> np.ndarray:
    model = load(folder, threads=1)
    rows = model.forward([[1, 2, 3], [4], [5, 6, 7, 8, 9]])
    return np.concatenate([np.ravel(each) for each in (*rows, model.embed(TEXTS))])


def main() -> None:
    """Everything, on small BERTs; the suite tries some of it."""
    from sentence_folders import with_modules
    from tiny_models import make_tiny_bert

    total = Counter[str]()
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
        classifier = make_tiny_bert(root / "model", "sequence-classification", **sizes)
        encoder = make_tiny_bert(root / "encoder", "encoder", **sizes)
        sentences = with_modules(encoder, root / "modules", mode="mean", normalize=True)
        for source in (classifier, sentences):
            for dtype in ("fp32", "int8"):
                folder = write_packed(source, root / source.name, dtype=dtype)
                found = try_damage(folder, every_damage(folder, seed=1))
                print(f"{source.name} {dtype}: {dict(found)}", flush=True)
                total += found
                shutil.rmtree(root / source.name / "sparse")
    print(f"all: {dict(total)}")
    sys.exit(total["silent"] > 0)


if __name__ == "__main__":
    main()
