"""benchmarks/scale.py: every way answers all texts; speeds, ratios and costs are what files say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq

from checkout import BENCHMARKS, load_script
from sentences import SENTENCES
from tiny_models import TinyBert

SCRIPT = BENCHMARKS / "scale.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_script(SCRIPT)


def test_it_runs(tiny_bert: TinyBert, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    texts = [f"{text} {number}" for number, text in enumerate(SENTENCES * 3)][:40]
    pq.write_table(pa.table({"a": texts, "n": range(40)}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"b": [*texts[:5], None, " "]}), tmp_path / "b.parquet")  # known, none
    asked = ["--model", tiny_bert(), "--data", tmp_path / "a.parquet", tmp_path / "b.parquet"]
    asked += ["--columns", "a", "b", "--rows-per-file", 3, "--cores", 2, "--rounds", 1, "--json"]
    asked += ["--engines", "local"]  # what Ray does with files is in test_scale_ray
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, asked)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["settings"]["documents"] == 36  # 40 are no whole number of files for each process
    assert [each["way"] for each in result["ways"]] == ["1 thread", "2 threads", "2 processes"]
    for each in result["ways"]:
        assert each["documents_per_second"] > 0
        assert each["mean_tokens"] > 3


def test_the_start_is_not_counted(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers that finish a part of 10 rows each every second, after 30 s of starting."""

    class Processes:
        def __init__(self, *_: object, **__: object) -> None: ...

        def __enter__(self) -> Processes:
            return self

        def __exit__(self, *_: object) -> None: ...

        def map(self, call: object, paths: list[Path], outs: list[Path]) -> list[float]:
            for out, late in zip(outs, (0.0, 0.5), strict=True):
                out.mkdir()
                for second in range(4):
                    part = out / f"part-{second:06d}.parquet"
                    part.touch()
                    ended = 1e9 + 31 + late + second
                    os.utime(part, (ended, ended))
            return [34.0, 34.5]

    monkeypatch.setattr(benchmark, "ProcessPoolExecutor", Processes)
    monkeypatch.setenv("RAYON_NUM_THREADS", "")
    way = benchmark.Way("2 processes", "local", 2, 1)
    run = benchmark.measure(tmp_path / "m", way, [tmp_path / "x"] * 3, 10, 1)
    assert run.documents_per_second == pytest.approx(20)
    assert run.start == pytest.approx(34.5 - 80 / 20)
    assert run.seconds == 34.5


def test_ratios_are_taken_round_by_round(benchmark: ModuleType) -> None:
    speeds = {"Ray, 1 actor": (100.0, 10.0, 100.0), "Ray, 2 actors": (190.0, 18.0, 150.0)}
    runs = [
        benchmark.Run("m", way, turn, each, 5.0, 60.0)
        for way, rates in speeds.items()
        for turn, each in enumerate(rates)
    ]
    ways = benchmark.ways_for(2)[3:]
    one, two = (benchmark.summary("m", way, runs, 12.5) for way in ways)
    assert (one["times_one_core"], one["efficiency"]) == (1.0, 1.0)
    assert two["times_one_core"] == pytest.approx(1.8)  # the median of 1.9, 1.8 and 1.5
    assert two["efficiency"] == pytest.approx(0.9)
    assert two["tokens_per_second"] == pytest.approx(150 * 12.5)
    assert one["core_hours_per_million"] == pytest.approx(1e6 / 100 / 3600)
    assert two["core_hours_per_billion"] == pytest.approx(2e9 / 150 / 3600)  # both cores count
    machine = {"cpu": "c", "cores": "2", "instruction_set": "i", "ray": "r", "date": "d"}
    settings = {"documents": 9, "mean_characters": 1.0, "rows_per_file": 3, "rounds": 3}
    told = benchmark.as_markdown({"machine": machine, "settings": settings, "ways": [one, two]})
    assert "| m (12.5 tokens) | Ray, 2 actors | 150 | 18 to 190 | 1,875 | 1.80 | 0.90 |" in told
