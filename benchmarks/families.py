"""What a family's architecture costs: two random models of one size take turns, call by call.

    python benchmarks/families.py bert-base deberta-v3-base --threads 2

Both are pruned to 1:2, packed, and loaded into one process, so that drifting machine speed affects
both alike. A round is the median of --calls calls of each. Prints the medians of the rounds, in
milliseconds, and of their ratios, with the lowest and the highest ratio.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import sparsebert
from sparsebert.bench import RANDOM_MODELS, parse_shapes, write_random_model


def milliseconds(model: sparsebert.Model, batch: list[list[int]]) -> float:
    start = time.perf_counter()
    model.forward(batch)
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs=2, choices=list(RANDOM_MODELS), metavar="SIZE")
    parser.add_argument("--shapes", default="1x128,8x128")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sparsebert-") as temporary:
        folders = [Path(temporary) / f"{place}" for place in range(2)]
        for name, folder in zip(given.sizes, folders, strict=True):
            write_random_model(name, folder / "dense")
            sparsebert.prune(folder / "dense", folder / "sparse")
        for dtype in ("int8", "fp32"):
            for folder in folders:
                sparsebert.pack(folder / "sparse", folder / dtype, dtype=dtype)
            models = [sparsebert.load(f / dtype, threads=given.threads) for f in folders]
            for shape in parse_shapes(given.shapes):
                draw = np.random.default_rng(0)
                batch = draw.integers(1000, 30_000, (shape.batch, shape.tokens)).tolist()
                for model in models:
                    milliseconds(model, batch)
                rounds = []
                for _ in range(given.rounds):
                    turns = [[milliseconds(m, batch) for m in models] for _ in range(given.calls)]
                    rounds.append(
                        [statistics.median(of_one) for of_one in zip(*turns, strict=True)]
                    )
                first, second = (statistics.median(of) for of in zip(*rounds, strict=True))
                ratios = sorted(b / a for a, b in rounds)
                print(
                    f"{dtype} {shape.batch}x{shape.tokens}: {given.sizes[0]} {first:.3g} ms, "
                    f"{given.sizes[1]} {second:.3g} ms, {statistics.median(ratios):.2f} times "
                    f"({ratios[0]:.2f} to {ratios[-1]:.2f})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
