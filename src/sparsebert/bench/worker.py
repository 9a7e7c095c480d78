"""One engine in a process of its own, told what to do by JSON lines on standard input.

    {"do": "prepare", "model": FOLDER, "workspace": FOLDER}   -> {"folder": FOLDER}
    {"do": "load", "folder": FOLDER, "threads": 2}            -> {"seconds": 0.4, "about": {...}}
    {"do": "run", "batch": 1, "tokens": 128, "vocabulary": 30522, "warm_up": 1, "calls": 5}
                                                              -> {"seconds": [0.03, ...]}
    {"do": "memory"}                                          -> {"peak_bytes": 123456789}

What goes wrong comes back as {"error": TEXT}; the end of standard input ends the worker.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from sparsebert.bench.engines import Engine, known_engines
from sparsebert.bench.machine import peak_memory


def _answer(engine: Engine, request: dict[str, Any]) -> dict[str, Any]:
    match request["do"]:
        case "prepare":
            folder = engine.prepare(Path(request["model"]), Path(request["workspace"]))
            return {"folder": str(folder)}
        case "load":
            engine.start()
            start = time.perf_counter()
            engine.load(Path(request["folder"]), request["threads"])
            return {"seconds": time.perf_counter() - start, "about": engine.about()}
        case "run":
            return {"seconds": _timed_calls(engine, request)}
        case "memory":
            return {"peak_bytes": peak_memory()}
        case other:
            raise ValueError(f"a worker cannot '{other}'")


def _timed_calls(engine: Engine, request: dict[str, Any]) -> list[float]:
    # The same ids for every engine; their values do not matter, their rows of the embedding do.
    ids = np.random.default_rng(0).integers(
        1, request["vocabulary"], (request["batch"], request["tokens"]), dtype=np.int64
    )
    for _ in range(request["warm_up"]):
        engine.run(ids)
    seconds = []
    for _ in range(request["calls"]):
        start = time.perf_counter()
        engine.run(ids)
        seconds.append(time.perf_counter() - start)
    return seconds


def main(name: str) -> None:
    """Serve requests until standard input ends."""
    # Answers keep the real standard output; whatever a library prints goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    engine = known_engines()[name]()
    for line in sys.stdin:
        try:
            answer = _answer(engine, json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
