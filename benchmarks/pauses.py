"""The latency of calls with pauses between them, as on a server that waits for requests.

    python benchmarks/pauses.py packed/ --threads 1,2

One text of each length, again and again, with pauses in which the threads fall asleep. Prints
medians over the rounds, in which thread counts take turns, of a sample's median and 90th
percentile, in milliseconds. For calls without pauses, see `sparsebert bench`.
"""

from __future__ import annotations

import argparse
import statistics
import time

import sparsebert

SAMPLE_SECONDS = 1.2
MOST_CALLS = 150


def integers(text: str) -> list[int]:
    numbers = [int(word) for word in text.split(",")]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError("each must be at least 1")
    return numbers


def sample(model: sparsebert.Model, tokens: int, pause: float) -> tuple[float, float]:
    """Median and 90th percentile, in milliseconds, of a call after ``pause`` seconds."""
    ids = [[1000 + i for i in range(tokens)]]
    times = []
    for _ in range(max(2, min(MOST_CALLS, int(SAMPLE_SECONDS / pause)))):
        time.sleep(pause)
        start = time.perf_counter()
        model.forward(ids)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times), statistics.quantiles(times, n=10)[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="a packed folder, or any that `load` takes")
    parser.add_argument("--threads", type=integers, default=[1, 2], metavar="N,...")
    parser.add_argument("--tokens", type=integers, default=[16, 64, 128], metavar="N,...")
    parser.add_argument("--pauses", type=integers, default=[2, 10], metavar="MS,...")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    models = {threads: sparsebert.load(given.model, threads=threads) for threads in given.threads}
    print("| tokens | pause, ms | threads | median, ms | p90, ms |\n|---:|---:|---:|---:|---:|")
    for tokens in given.tokens:
        for pause in given.pauses:
            rounds = [
                {threads: sample(model, tokens, pause / 1e3) for threads, model in models.items()}
                for _ in range(given.rounds)
            ]
            for threads in models:
                middle, high = (
                    statistics.median(of)
                    for of in zip(*(each[threads] for each in rounds), strict=True)
                )
                print(f"| {tokens} | {pause} | {threads} | {middle:.2f} | {high:.2f} |", flush=True)


if __name__ == "__main__":
    main()
