"""What checking a packed folder against its checksums adds to loading it.

    python benchmarks/loading.py bert-base --threads 2
    python benchmarks/loading.py sentence-transformers/all-mpnet-base-v2 --threads 2

A dense model, or one with random weights and no tokenizer, is pruned to 1:2, packed, and loaded
alternately from that folder and from a copy without checksums. Prints medians in milliseconds, with
libraries imported and the file in the page cache: of loading, and of loading plus a first answer,
to a short text or 16 ids.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import sparsebert
from sparsebert.bench import RANDOM_MODELS, write_random_model


def milliseconds(folder: Path, threads: int | None) -> tuple[float, float]:
    start = time.perf_counter()
    model = sparsebert.load(folder, threads=threads)
    loaded = time.perf_counter()
    if (folder / "tokenizer.json").exists():
        model.embed("A small film.")
    else:
        model.forward([list(range(1000, 1016))])
    return (loaded - start) * 1e3, (time.perf_counter() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="a size of `bench --random`, or a model")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=21)
    given = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    with tempfile.TemporaryDirectory(prefix="sparsebert-") as temporary:
        root = Path(temporary)
        source = given.model
        if source in RANDOM_MODELS:
            write_random_model(source, root / "dense")
            source = root / "dense"
        sparsebert.prune(source, root / "sparse", method="magnitude")
        for dtype in ("int8", "fp32"):
            checked, unchecked = root / dtype, root / f"{dtype}-unchecked"
            sparsebert.pack(root / "sparse", checked, dtype=dtype)
            shutil.copytree(checked, unchecked)
            (unchecked / "checksums.json").unlink()
            rounds = [
                [*milliseconds(checked, given.threads), *milliseconds(unchecked, given.threads)]
                for _ in range(given.rounds)
            ][1:]
            loaded, answered, *without = (statistics.median(of) for of in zip(*rounds, strict=True))
            print(
                f"{given.model} {dtype}: loaded after {loaded:.1f} ms, unchecked {without[0]:.1f}; "
                f"first answer after {answered:.1f}, unchecked {without[1]:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
