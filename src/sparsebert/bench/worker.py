"""An engine and its worker process: JSON lines in, JSON lines out.

    {"do": "prepare", "model": FOLDER, "workspace": FOLDER}     -> {"folder": FOLDER}
    {"do": "load", "folder": FOLDER, "threads": 2, "batches": FILE}
                      -> {"seconds": 0.4, "first_answer_seconds": 0.5, "about": {...}}
    {"do": "run", "batches": FILE, "warm_up": 1, "calls": 5}    -> {"seconds": [0.03, ...]}
    {"do": "memory"}                                            -> {"peak_bytes": 123456789}

A call runs every batch of FILE, a JSON list of batches of lists of token ids. An exception is
returned as {"error": TEXT}; the end of standard input ends the worker.

An engine may live in another Python, where this file is run by its path: it imports nothing but
numpy and the standard library.
"""

from __future__ import annotations

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_LONGEST_SPIN = 0.5  # seconds; a pool that spins for longer needs to be configured not to
_SLEEP = 0.01


@dataclass(frozen=True, eq=False)
class Batch:
    """Token ids as engines want them: int64, ragged or padded to ``[batch, longest]``."""

    sequences: list[npt.NDArray[np.int64]]
    ids: npt.NDArray[np.int64]
    mask: npt.NDArray[np.int64]
    """1 where there is a token, 0 where there is padding."""
    types: npt.NDArray[np.int64]
    """All 0, also for pairs: which row of the embedding is read does not affect speed."""

    @classmethod
    def of(cls, sequences: list[list[int]]) -> Batch:
        """Both forms of ``sequences``."""
        ids = np.zeros((len(sequences), max(map(len, sequences))), np.int64)
        mask = np.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        ragged = [np.array(sequence, np.int64) for sequence in sequences]
        return cls(ragged, ids, mask, np.zeros_like(ids))

    def named(self, names: Iterable[str]) -> dict[str, npt.NDArray[np.int64]]:
        """The padded arrays that a network takes, by transformers' names for them."""
        known = {"input_ids": self.ids, "attention_mask": self.mask, "token_type_ids": self.types}
        return {name: known[name] for name in names}


class Setup(ABC):
    """An engine before it runs: whether it is installed, what it loads, its worker's command."""

    precision = "fp32"
    """What its linear layers multiply in: engines are compared within a precision, and overall."""
    ragged = False
    """Whether it takes ragged batches; the others get theirs sorted by length and padded."""
    prepares = True
    """Whether `prepare` does anything (a process is started for it only then)."""
    cacheable = True
    """Whether the next run of the same model may reuse what `prepare` made (``--cache``)."""

    @abstractmethod
    def missing(self) -> str | None:
        """Why this engine cannot run here, with what to do; None if it can."""

    def prepare(self, model: Path, workspace: Path) -> Path:
        """Convert a Hugging Face or packed folder to what this engine loads; returns its path.

        The result gets a folder of its own in ``workspace``, which other engines use as well.
        """
        return model

    def prepare_command(self, name: str) -> list[str]:
        """The command line of a worker that prepares this engine."""
        return [sys.executable, "-m", "sparsebert.bench.engines", name]

    def command(self, name: str) -> list[str]:
        """The command line of a worker that loads and runs this engine."""
        return self.prepare_command(name)

    def environment(self, threads: int) -> dict[str, str]:
        """Variables that its library reads once, when it starts."""
        return {}


class Engine(Setup):
    """An engine in this Python. Files of engines import their library inside the methods."""

    def start(self) -> None:
        """Import the library, so that load time is the model's alone."""

    @abstractmethod
    def load(self, folder: Path, threads: int) -> None:
        """Load what `prepare` returned, configured for speed as the engine's own guide advises."""

    @abstractmethod
    def run(self, batch: Batch) -> Any:
        """One forward pass: the head's logits, or the last hidden states of a model without one."""

    @abstractmethod
    def about(self) -> dict[str, str]:
        """After loading: "version" and "settings" (kernels in use), for the result's header."""


@lru_cache(maxsize=2)
def _batches(file: str) -> list[Batch]:
    batches = json.loads(Path(file).read_text(encoding="utf-8"))
    return [Batch.of(sequences) for sequences in batches]


def _answer(engine: Engine, request: dict[str, Any]) -> dict[str, Any]:
    match request["do"]:
        case "prepare":
            folder = engine.prepare(Path(request["model"]), Path(request["workspace"]))
            return {"folder": str(folder)}
        case "load":
            return _load(engine, request)
        case "run":
            seconds = _timed_calls(engine, request)
            _wait_until_idle()
            return {"seconds": seconds}
        case "memory":
            return {"peak_bytes": peak_memory()}
        case other:
            raise ValueError(f"a worker cannot '{other}'")


def _load(engine: Engine, request: dict[str, Any]) -> dict[str, Any]:
    first = _batches(request["batches"])[0]
    engine.start()
    start = time.perf_counter()
    engine.load(Path(request["folder"]), request["threads"])
    loaded = time.perf_counter()
    engine.run(first)
    answered = time.perf_counter()
    return {
        "seconds": loaded - start,
        "first_answer_seconds": answered - start,
        "about": engine.about(),
    }


def _timed_calls(engine: Engine, request: dict[str, Any]) -> list[float]:
    batches = _batches(request["batches"])
    seconds = []
    for call in range(request["warm_up"] + request["calls"]):
        start = time.perf_counter()
        for batch in batches:
            engine.run(batch)
        if call >= request["warm_up"]:
            seconds.append(time.perf_counter() - start)
    return seconds


def _wait_until_idle() -> None:
    """Return once this process's threads sleep, so that the next engine has the cores to itself.

    Thread pools spin for more work after a call: most for a few milliseconds at most, ONNX Runtime
    for 40 ms, OpenMP by Intel or LLVM for up to 200 ms. Without spinning (OMP_WAIT_POLICY=PASSIVE,
    allow_spinning=0) they are 5 to 20 % slower at few tokens; waiting puts no engine at a
    disadvantage.
    """
    deadline = time.perf_counter() + _LONGEST_SPIN
    while time.perf_counter() < deadline:
        busy = time.process_time()
        time.sleep(_SLEEP)
        if time.process_time() - busy < _SLEEP / 20:
            return


def peak_memory() -> int:
    """The most memory this process has held at once, in bytes."""
    # On Linux, a child inherits its parent's peak in ru_maxrss; VmHWM is its own.
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource  # not on Windows, which has no /proc either

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def serve(engine: Engine) -> None:
    """Serve requests until standard input ends."""
    # Responses use the real standard output; whatever a library prints goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer = _answer(engine, json.loads(line))
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), "")
            answer = {"error": f"{type(error).__name__}: {reason}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
