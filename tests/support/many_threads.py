"""Eight threads ask one model at once, whose compiled module is another: under a thread sanitizer.

python many_threads.py --module _engine.so MODEL
"""

from __future__ import annotations

import sys
import threading

import numpy as np

from other_module import use_module


def main(module: str, folder: str) -> int:
    use_module(module)
    import sparsebert

    model = sparsebert.load(folder, threads=2)
    batches = [[[2, 5, 6, 3] * n] * m for n, m in ((1, 1), (3, 7), (4, 40), (2, 16))]
    expected = [model.forward(ids) for ids in batches]
    different = []

    def ask(first: int) -> None:
        for n in range(first, first + 8):
            at = n % len(batches)
            if not np.array_equal(model.forward(batches[at]), expected[at]):
                different.append(at)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{len(different)} answers differ" if different else "all the same")
    return len(different)


if __name__ == "__main__":
    sys.exit(main(sys.argv[2], sys.argv[3]))
