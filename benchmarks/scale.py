"""Files through `embed_files`: the throughput of one core and of several, here and on Ray.

    python benchmarks/scale.py --model packed/ --data qqp/validation.parquet \\
      qnli/validation.parquet --columns question1 question2 question sentence

The texts are written to one Parquet file, which every way processes in parts of
``--rows-per-file``:

    1 thread, N threads    one process; the engine and the tokenizer have that many threads
    N processes            that share nothing, with 1 thread and every N-th row each: the most that
                           the machine can do
    Ray, 1 and N actors    1 thread each, on a new cluster on this machine

A way's speed is measured from the moment when each worker has finished a part to the end of the
last part, by the times of the files: it is what a long job approaches. Starting Ray, processes and
engines is left out, and reported as ``start``. Rounds go through all ways, each round in another
order, so that other load on the machine affects all alike. Reports medians over rounds, ratios
within a round, and what documents cost: cores x time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sparsebert.engine import available_cores
from sparsebert.machine import describe_machine
from sparsebert.scale.parts import ROWS_PER_FILE

ENGINES = ("local", "ray")
ALONE, RAY_ALONE = "1 thread", "Ray, 1 actor"


@dataclass(frozen=True)
class Way:
    """``workers`` engines with ``threads`` threads each; ``engine`` is that of `embed_files`."""

    name: str
    engine: str
    workers: int
    threads: int

    @property
    def cores(self) -> int:
        return self.workers * self.threads

    @property
    def one(self) -> str:
        """The way that it is compared with: the same engine on one core."""
        return RAY_ALONE if self.engine == "ray" else ALONE


@dataclass(frozen=True)
class Run:
    """Documents per second in the steady state; ``start`` and ``seconds`` are of the whole call."""

    model: str
    way: str
    round: int
    documents_per_second: float
    start: float
    seconds: float


def main() -> int:
    asked = parse()
    ways = [way for way in ways_for(asked.cores) if way.engine in asked.engines]
    texts = read_texts(asked.data, asked.columns, asked.rows, asked.seed)
    # Parts of equal size, the same number for each worker.
    whole = asked.rows_per_file * asked.cores
    texts = texts[: len(texts) // whole * whole]
    if len(texts) < 2 * whole:
        raise SystemExit(f"{len(texts)} texts are too few: at least {2 * whole} are needed.")
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_inputs(texts, Path(folder), asked.cores)
        for turn in range(asked.rounds):
            pairs = [(model, way) for way in ways for model in asked.model]
            start = turn * len(pairs) // asked.rounds
            for model, way in pairs[start:] + pairs[:start]:
                run = measure(model, way, inputs, asked.rows_per_file, turn + 1)
                runs.append(run)
                tell(
                    f"round {run.round}, {run.model}, {run.way}: {run.documents_per_second:.0f} "
                    f"documents/s, start {run.start:.1f} s"
                )
    tokens = {name(model): mean_tokens(model, texts) for model in asked.model}
    result = {
        "machine": describe_machine() | libraries(),
        "settings": {
            "documents": len(texts),
            "rows_per_file": asked.rows_per_file,
            "rounds": asked.rounds,
            "mean_characters": round(statistics.fmean(map(len, texts)), 1),
        },
        "ways": [summary(model, way, runs, tokens[model]) for model in tokens for way in ways],
        "runs": [asdict(run) for run in runs],
    }
    print(json.dumps(result) if asked.json else as_markdown(result))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", type=Path, required=True, help="model folders")
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="Parquet files")
    parser.add_argument(
        "--columns", nargs="+", default=["text"], help="those with texts; a file may lack some"
    )
    parser.add_argument(
        "--rows", type=int, default=80_000, help="use a selection of this many texts"
    )
    parser.add_argument("--rows-per-file", type=int, default=ROWS_PER_FILE)
    parser.add_argument("--cores", type=int, default=available_cores(), help="N in the ways above")
    parser.add_argument("--engines", nargs="+", default=ENGINES, choices=ENGINES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    return parser.parse_args()


def ways_for(cores: int) -> list[Way]:
    return [
        Way(ALONE, "local", 1, 1),
        Way(f"{cores} threads", "local", 1, cores),
        Way(f"{cores} processes", "local", cores, 1),
        Way(RAY_ALONE, "ray", 1, 1),
        Way(f"Ray, {cores} actors", "ray", cores, 1),
    ]


def read_texts(files: Sequence[Path], columns: Sequence[str], rows: int, seed: int) -> list[str]:
    """Each text once, a random selection in random order."""
    import pyarrow.parquet as pq

    found: dict[str, None] = {}
    for file in files:
        names = [each for each in columns if each in pq.read_schema(file).names]
        if not names:
            raise SystemExit(f"{file} has none of the columns {', '.join(columns)}.")
        for column in pq.read_table(file, columns=names).columns:
            found |= dict.fromkeys(text for text in column.to_pylist() if text and text.strip())
    texts = list(found)
    random.Random(seed).shuffle(texts)
    return texts[:rows]


def write_inputs(texts: Sequence[str], folder: Path, shares: int) -> list[Path]:
    """A file with all texts, then one for each of ``shares`` processes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    given = [texts, *(texts[share::shares] for share in range(shares))]
    paths = [folder / f"texts-{number}.parquet" for number in range(len(given))]
    for path, some in zip(paths, given, strict=True):
        pq.write_table(pa.table({"text": some}), path)
    return paths


def measure(model: Path, way: Way, inputs: Sequence[Path], rows_per_file: int, turn: int) -> Run:
    alone = way.engine == "local" and way.workers > 1
    calls = inputs[1:] if alone else inputs[:1]
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        outs = [Path(scratch) / f"out-{number}" for number in range(len(calls))]
        # Tokenizers have their own threads, whose number is read from this when a process begins.
        os.environ["RAYON_NUM_THREADS"] = str(way.threads)
        with ProcessPoolExecutor(len(calls), mp_context=context) as processes:
            call = partial(embed, model, way, rows_per_file)
            seconds = max(processes.map(call, calls, outs))
        ended = sorted(part.stat().st_mtime for out in outs for part in out.glob("part-*"))
    rate = rows_per_file * (len(ended) - way.workers) / (ended[-1] - ended[way.workers - 1])
    start = seconds - rows_per_file * len(ended) / rate
    return Run(name(model), way.name, turn, rate, start, seconds)


def embed(model: Path, way: Way, rows_per_file: int, path: Path, out: Path) -> float:
    """Process a file, and return the seconds that the whole call took."""
    from sparsebert.scale import embed_files

    started = time.perf_counter()
    result = embed_files(
        model,
        path,
        out,
        keep_columns=[],
        rows_per_file=rows_per_file,
        engine=way.engine,
        threads=way.threads,
        actors=way.workers if way.engine == "ray" else None,
        address="local" if way.engine == "ray" else None,
    )
    seconds = time.perf_counter() - started
    if way.engine == "ray" and result.workers != way.workers:
        raise SystemExit(
            f"only {result.workers} of {way.workers} actors had work: use more --rows."
        )
    return seconds


def mean_tokens(model: Path, texts: Sequence[str]) -> float:
    """As the engine reads them: with special tokens, truncated to the model's length."""
    import warnings

    from sparsebert import load
    from sparsebert.inference.texts import as_texts
    from sparsebert.inference.tokenizing import TruncationWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        sequences = load(model).tokenizer.encode(as_texts(texts))
    return statistics.fmean(map(len, sequences))


def name(model: Path) -> str:
    return model.absolute().name


def summary(model: str, way: Way, runs: Sequence[Run], tokens: float) -> dict[str, Any]:
    """The result of a way with a model: medians over rounds, and of the ratios within a round."""
    speeds = {(run.way, run.round): run.documents_per_second for run in runs if run.model == model}
    mine = {turn: speed for (named, turn), speed in speeds.items() if named == way.name}
    times = statistics.median(speed / speeds[way.one, turn] for turn, speed in mine.items())
    rate = statistics.median(mine.values())
    hours = way.cores / rate / 3600
    return {
        "model": model,
        "way": way.name,
        "cores": way.cores,
        "documents_per_second": rate,
        "lowest": min(mine.values()),
        "highest": max(mine.values()),
        "mean_tokens": tokens,
        "tokens_per_second": rate * tokens,
        "times_one_core": times,
        "efficiency": times / way.cores,
        "start": statistics.median(
            run.start for run in runs if (run.model, run.way) == (model, way.name)
        ),
        "core_hours_per_million": 1e6 * hours,
        "core_hours_per_billion": 1e9 * hours,
    }


def libraries() -> dict[str, str]:
    from importlib.metadata import version

    return {each: version(each) for each in ("ray", "pyarrow", "tokenizers")}


def as_markdown(result: dict[str, Any]) -> str:
    machine, settings = result["machine"], result["settings"]
    lines = [
        f"{settings['documents']:,} documents of {settings['mean_characters']} characters on "
        f"average, {settings['rows_per_file']:,} per file, {settings['rounds']} rounds; "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['instruction_set']}, Ray "
        f"{machine['ray']}, {machine['date']}",
        "",
        "| model | way | documents/s | lowest to highest | tokens/s | times one core | efficiency "
        "| start s | core-hours, 10^6 | core-hours, 10^9 |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for each in result["ways"]:
        lines.append(
            f"| {each['model']} ({each['mean_tokens']:.1f} tokens) | {each['way']} | "
            f"{each['documents_per_second']:,.0f} | {each['lowest']:,.0f} to "
            f"{each['highest']:,.0f} | {each['tokens_per_second']:,.0f} | "
            f"{each['times_one_core']:.2f} | {each['efficiency']:.2f} | {each['start']:.1f} | "
            f"{each['core_hours_per_million']:.3g} | {each['core_hours_per_billion']:,.0f} |"
        )
    return "\n".join(lines)


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
