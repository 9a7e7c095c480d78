"""Each file operation of a step fails, or is the last of its process: what must hold afterwards.

    python fault_runs.py STEP INPUTS --way kill                every operation, one by one
    python fault_runs.py STEP INPUTS --way kill --share 0.1    a tenth of them, by chance (--seed)
    python fault_runs.py --make INPUTS                         the small models and data for it

Runs itself again under failing_files.c. For n = 1, 2, 3, ... the step is run in a process of its
own (a fork, in which all is imported already), whose n-th operation on files of the output fails;
then the output must be the old one or the new one, whole, and the error one sentence of ours. Then
the step is run once more as any user would, and there must be the same result as of a run that
nothing befell, and nothing beside it. The last line is a JSON object of counts.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import hashlib
import importlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# As in failing_files.c.
READS, GROWS, CHANGES, SHRINKS, BYTES = 1, 2, 4, 8, 16
WRITES = GROWS | CHANGES | SHRINKS
COUNT, ONCE, FROM_HERE, FULL, KILL, TORN = range(6)


@dataclass(frozen=True)
class Way:
    """How an operation fails: ``tidy`` where the step can still remove what it has begun."""

    number: int
    kinds: int
    error: int = 0
    tidy: bool = False


WAYS = {
    "error": Way(ONCE, GROWS | CHANGES, errno.EIO, tidy=True),
    "full": Way(FULL, GROWS | CHANGES, errno.ENOSPC, tidy=True),
    "read-only": Way(FROM_HERE, WRITES, errno.EROFS),
    "kill": Way(KILL, WRITES),
    "torn": Way(TORN, BYTES),  # killed in the middle of a write
    "read": Way(ONCE, READS, errno.EIO, tidy=True),
}


@dataclass(frozen=True)
class Step:
    """``run(inputs, place)`` writes ``place/out``; an ``old`` output is there before, a copy of it.

    ``modules`` are imported once for all runs. ``ignored`` files of the result tell times. What
    is ``kept`` beside the output after a failure is there for the next run.
    """

    run: Callable[[Path, Path], object]
    modules: tuple[str, ...]
    old: str | None = "old"
    ignored: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def _file(inputs: Path, place: Path) -> None:
    from sparsebert.checkpoint.json_files import replace_json
    from sparsebert.errors import OutputError

    try:
        replace_json(place / "out", {"new": 1})
    except OSError as error:  # what a step makes of it
        raise OutputError(f"out could not be written: {error.strerror}.") from error


def _folder(inputs: Path, place: Path) -> None:
    from sparsebert.checkpoint import staged_folder

    with staged_folder(place / "out", force=True, source=inputs / "old") as staging:
        (staging / "config.json").write_text("{}", encoding="utf-8")
        (staging / "inner").mkdir()
        shutil.copyfile(inputs / "old" / "config.json", staging / "inner" / "copied")


def _prune(inputs: Path, place: Path) -> None:
    from sparsebert.pruning import prune

    prune(inputs / "dense", place / "out", method="magnitude", force=True)


def _pack(inputs: Path, place: Path) -> None:
    from sparsebert.packing import pack

    pack(inputs / "sparse", place / "out", dtype="int8", force=True)


def _embed(inputs: Path, place: Path) -> None:
    import numpy as np

    from sparsebert.cli.npy_file import NpyFile

    with NpyFile(place / "out", 3, force=True) as file:
        for _ in range(3):
            file.write(np.ones((5, 3), np.float32))


def _finetune(inputs: Path, place: Path) -> None:
    from sparsebert.training import finetune

    finetune(
        inputs / "sparse",
        place / "out",
        task="custom",
        data=inputs / "data",
        epochs=2,
        batch_size=8,
        learning_rate=1e-3,
        resume=True,
        force=True,
    )


def _seeds(inputs: Path, place: Path) -> None:
    from sparsebert.training.seeds import finetune_seeds

    finetune_seeds(
        inputs / "sparse",
        place / "out",
        task="custom",
        data=inputs / "data",
        seeds=(1, 2),
        epochs=1,
        batch_size=8,
        learning_rate=1e-3,
    )


def _upstream(inputs: Path, place: Path) -> None:
    from sparsebert.training import prune_upstream

    prune_upstream(
        inputs / "dense",
        place / "out",
        corpus=inputs / "texts.txt",
        epochs=2,
        batch_size=8,
        max_length=16,
        resume=True,
        force=True,
    )


def _halve(inputs: Path, place: Path) -> None:
    from sparsebert.halving import halve

    halve(
        inputs / "dense",
        place / "out",
        texts=[inputs / "texts.txt"],
        max_drop=float("inf"),
        bench=False,
        force=True,
    )


_TORCH = ("torch", "transformers.trainer", "pyarrow.parquet", "sklearn.metrics", "accelerate")
_TRAINING = (
    *_TORCH,
    "sparsebert.training.finetuning",
    "sparsebert.training.run",
    "sparsebert.training.job",
    "sparsebert.training.saving",
    "sparsebert.training.seeds",
    "sparsebert.training.upstream.pruning",
    "sparsebert.training.upstream.run",
)
_TIMES = ("training.json", "README.md", "seeds.json")
STEPS = {
    "file": Step(_file, ("sparsebert.checkpoint",), old="texts.txt"),
    "folder": Step(_folder, ("sparsebert.checkpoint",)),
    "embed": Step(_embed, ("sparsebert.cli.npy_file",), old="texts.txt"),
    "prune": Step(_prune, ("sparsebert.pruning.one_shot",)),
    "pack": Step(_pack, ("sparsebert.packing.pack_folder",)),
    "finetune": Step(_finetune, _TRAINING, ignored=_TIMES, kept=("out.training",)),
    "seeds": Step(_seeds, _TRAINING, old=None, ignored=_TIMES, kept=("out",)),
    "upstream": Step(_upstream, _TRAINING, ignored=_TIMES, kept=("out.training",)),
    "halve": Step(
        _halve,
        (*_TRAINING, "sparsebert.halving.run"),
        ignored=(*_TIMES, "report.html", "halving.json"),
        kept=("out.halving",),
    ),
}


class Runs:
    """The runs of one step that fails in one way."""

    def __init__(self, step: Step, way: Way, inputs: Path, place: Path, faults: Any) -> None:
        self._step, self._way, self._inputs, self._faults = step, way, inputs, faults
        self._place = place
        self._old: object = None
        self._new: object = None

    def operations(self) -> int:
        """How many operations a run that nothing befalls has; its output is what all must give."""
        self._prepare()
        self._old = self._output()
        outcome = self._fork(COUNT, 0)
        assert outcome.get("done"), f"the step fails by itself: {outcome}"
        self._new = self._output()
        assert self._new is not None
        self._expect_nothing_beside(outcome)
        return int(outcome["seen"])

    def fail_at(self, number: int) -> str:
        """One run whose operation ``number`` fails, and one after it; how the first one ended."""
        self._prepare()
        outcome = self._fork(self._way.number, number)
        found, step, ended = self._output(), self._step, self._ended(outcome)
        whole = [self._new if ended == "done" else self._old]
        if ended in ("killed", "refused") and (not self._way.tidy or "out" in step.kept):
            whole.append(self._new)
        if "out" not in step.kept:
            assert found in whole, f"the output is neither the old one nor the new: {outcome}"
        if self._way.tidy:
            self._expect_nothing_beside(outcome, step.kept)
        again = self._fork(COUNT, 0)
        assert again.get("done"), f"the next run fails, after {outcome}: {again}"
        others = self._differing(self._output(), self._new)
        assert not others, f"the next run ends with other {others}, after {outcome}"
        self._expect_nothing_beside(outcome)
        return ended

    def _ended(self, outcome: dict[str, Any]) -> str:
        if outcome.get("signal") == 9 and self._way.number in (KILL, TORN):
            return "killed"
        assert "signal" not in outcome, f"ended by a signal: {outcome}"
        if outcome.get("done"):
            return "done"
        assert outcome["ours"], f"not an error of ours: {outcome}"
        message = outcome["error"]
        assert message.endswith("."), f"not a sentence: {message}"
        assert "\n" not in message, f"more than a sentence: {message}"
        return "refused"

    def _prepare(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)
        self._place.mkdir()
        if self._step.old is None:
            return
        old = self._inputs / self._step.old
        (shutil.copyfile if old.is_file() else shutil.copytree)(old, self._place / "out")

    def _fork(self, way: int, at: int) -> dict[str, Any]:
        """Run the step in a process of its own, and say how it ended."""
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            outcome = self._outcome(way, at)
            os.write(writer, json.dumps(outcome).encode()[:60_000])
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            told = pipe.read()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            return {"signal": os.WTERMSIG(status)}
        return json.loads(told)  # type: ignore[no-any-return]

    def _outcome(self, way: int, at: int) -> dict[str, Any]:
        from sparsebert.errors import SparsebertError

        watched = self._inputs if self._way.kinds == READS else self._place
        outcome: dict[str, Any] = {}
        self._faults.faults_arm(
            os.fsencode(watched), self._way.kinds, way, ctypes.c_long(at), self._way.error
        )
        try:
            self._step.run(self._inputs, self._place)
            outcome["done"] = True
        except BaseException as error:
            outcome["ours"] = isinstance(error, SparsebertError)
            outcome["error"] = str(error)
            if not outcome["ours"]:
                outcome["trace"] = traceback.format_exc(limit=-3)
        outcome["seen"] = self._faults.faults_seen()
        self._faults.faults_arm(b"", 0, COUNT, ctypes.c_long(0), 0)
        return outcome

    def _output(self) -> object:
        """What is at ``out``: a file's contents, a folder's names and digests; None for none."""
        out = self._place / "out"
        if not out.is_dir():
            return out.read_bytes() if out.exists() else None
        return {
            path.relative_to(out).as_posix(): "a folder" if path.is_dir() else self._digest(path)
            for path in sorted(out.rglob("*"))
            # A lock's file is left if the process is killed between the last two operations.
            if path.name not in (*self._step.ignored, ".lock")
        }

    def _digest(self, path: Path) -> str:
        contents = path.read_bytes()
        if path.name == "checksums.json":  # of files that tell times, too
            document = json.loads(contents)
            for name in self._step.ignored:
                document["files"].pop(name, None)
            contents = json.dumps(document).encode()
        return hashlib.sha256(contents).hexdigest()

    @staticmethod
    def _differing(one: object, other: object) -> str:
        """The files in which two outputs differ."""
        if isinstance(one, dict) and isinstance(other, dict):
            names = sorted(one.keys() | other.keys())
            return ", ".join(name for name in names if one.get(name) != other.get(name))
        return "" if one == other else "contents"

    def _expect_nothing_beside(self, outcome: object, kept: tuple[str, ...] = ()) -> None:
        there = {path.relative_to(self._place).as_posix() for path in self._place.iterdir()}
        hidden = {
            path.relative_to(self._place).as_posix()
            for path in self._place.rglob("*")
            if ".partial-" in path.name or ".old-" in path.name
        }
        left = (there - {"out", *kept}) | hidden
        assert not left, f"left behind: {sorted(left)}, after {outcome}"


def make_inputs(folder: Path) -> None:
    """What the steps start from: tiny models, an old output, data and texts."""
    from sparsebert.pruning import prune
    from tiny_models import make_tiny_bert
    from tiny_tasks import write_classification

    make_tiny_bert(folder / "dense")
    prune(folder / "dense", folder / "sparse")
    prune(folder / "dense", folder / "old", pattern="2:4")
    write_classification(folder / "data", train=32, validation=8)
    lines = (f"a b c {number} d e f {number * 7}\n" for number in range(80))
    (folder / "texts.txt").write_text("".join(lines), encoding="utf-8")


def library(folder: Path) -> Path:
    """failing_files.c, compiled into ``folder``."""
    source = Path(__file__).with_name("failing_files.c")
    built = folder / "failing_files.so"
    if not built.exists() or built.stat().st_mtime < source.stat().st_mtime:
        compiler = os.environ.get("CC", "cc")
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(built), str(source), "-ldl"]
        subprocess.run(command, check=True)
    return built


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=STEPS, nargs="?")
    parser.add_argument("inputs", type=Path)
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--way", choices=WAYS, action="append")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.make:
        make_inputs(options.inputs)
        return 0
    if "SPARSEBERT_FAULTS" not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            built = str(library(Path(folder)))
            environment = {**os.environ, "LD_PRELOAD": built, "SPARSEBERT_FAULTS": built}
            return subprocess.run([sys.executable, *sys.argv], env=environment).returncode
    faults = ctypes.CDLL(os.environ["SPARSEBERT_FAULTS"])
    step = STEPS[options.step]
    for module in step.modules:
        importlib.import_module(module)
    chance = random.Random(options.seed)
    counts: Counter[str] = Counter()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(os.path.realpath(folder)) / "place"
        for name in options.way or WAYS:
            runs = Runs(step, WAYS[name], options.inputs.resolve(), place, faults)
            for number in range(1, runs.operations() + 1):
                if chance.random() >= options.share:
                    continue
                try:
                    counts[f"{name}: {runs.fail_at(number)}"] += 1
                except AssertionError as fault:
                    wrong += 1
                    print(f"{options.step}, {name}, operation {number}: {fault}", file=sys.stderr)
    print(json.dumps({"step": options.step, "wrong": wrong, **counts}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
