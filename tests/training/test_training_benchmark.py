"""benchmarks/training.py: every way trains and is scored, and ratios are those of each round."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

from checkout import BENCHMARKS, load_script
from tiny_models import TinyBert
from tiny_tasks import write_regression


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_script(BENCHMARKS / "training.py")


def test_every_way_trains(benchmark: ModuleType, tiny_bert: TinyBert, tmp_path: Path) -> None:
    model = tiny_bert("encoder", max_position_embeddings=benchmark.PADDED_LENGTH)
    data = write_regression(tmp_path / "data", train=40, validation=16)
    settings = benchmark.Settings(str(model), "stsb", str(data), 32, 3, 3e-3, 8)
    for way in benchmark.WAYS:
        run = benchmark.train(way, settings, 1)
        assert (run.way, run.seed, run.rows) == (way, 1, 32)
        assert run.seconds > 0
        assert -100 <= run.score <= 100


def test_ratios_are_taken_round_by_round(benchmark: ModuleType) -> None:
    settings = benchmark.Settings("m", "stsb", None, None, 2, 2e-5, 32)
    seconds = {"run_glue": (8.0, 60.0, 9.0), "finetune": (2.0, 20.0, 2.0)}  # a slow second round
    runs = [
        benchmark.Run(way, turn + 1, 100, each, 1.0, 50.0 + turn)
        for way, times in seconds.items()
        for turn, each in enumerate(times)
    ]
    ours = benchmark.summary("finetune", runs, settings)
    assert ours["times run_glue"] == 4.0  # the median of 4, 3 and 4.5
    assert "times run_glue, dynamic" not in ours
    assert ours["rows_per_second"] == 100.0
    assert ours["score"] == 51.0
    machine = {"cpu": "c", "threads": "2", "torch": "t", "transformers": "u", "date": "d"}
    result = {
        "machine": machine,
        "settings": dataclasses.asdict(settings),
        "runs": [{"rows": 100}],
        "ways": [benchmark.summary(way, runs, settings) for way in seconds],
    }
    assert "| finetune | 100.0 | 4.00 |  | 1 | 51.00 |" in benchmark.as_markdown(result)
    json.dumps(result, allow_nan=False)
