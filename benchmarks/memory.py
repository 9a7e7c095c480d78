"""Memory over time: a packed model embeds many short texts, and its process must not grow.

    python benchmarks/memory.py packed/ --texts 100000

Texts are made up, of 1 to 40 words, 12 at the median. Prints the resident memory after the first
1,000, when every buffer has its size, after each tenth of the rest, and the growth.

    python benchmarks/memory.py packed/ --long 8192

Prints the peak memory of the process after loading, and after one text of that many tokens. For
other engines, see the peak memory column of

    sparsebert bench --random modernbert-base --shapes 1x8192 --rounds 1
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import sparsebert
from sparsebert.bench.worker import peak_memory

_BATCH = 1000


def resident_bytes() -> int:
    """Memory of this process that is in RAM now (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmRSS")


def made_up_texts(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(5000)]
    lengths = [min(40, max(1, round(draw.lognormvariate(2.5, 0.7)))) for _ in range(count)]
    return [" ".join(draw.choices(words, k=length)) for length in lengths]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a packed folder with a tokenizer")
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--long", type=int, metavar="TOKENS", help="one text of this many instead")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    model = sparsebert.load(arguments.model, threads=arguments.threads)
    print(f"{model!r}")
    if arguments.long:
        print(f"loaded: {peak_memory() / 2**20:.0f} MiB")
        draw = random.Random(0)
        model.forward([[draw.randrange(1000, 20_000) for _ in range(arguments.long)]])
        print(f"one text of {arguments.long:,} tokens: {peak_memory() / 2**20:.0f} MiB")
        return
    started = time.perf_counter()
    first, shown = 0, 0
    for done in range(_BATCH, arguments.texts + _BATCH, _BATCH):
        model.embed(made_up_texts(_BATCH, done))
        now = resident_bytes()
        first = first or now
        if done == _BATCH or done * 10 // arguments.texts > shown:
            shown = done * 10 // arguments.texts
            print(f"{done:>9,} texts  {now / 2**20:7.1f} MiB", flush=True)
    seconds = time.perf_counter() - started
    print(f"grew by {100 * (now / first - 1):.1f} % in {seconds:.0f} s")


if __name__ == "__main__":
    main()
