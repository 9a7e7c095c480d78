"""Measuring: what is asked for, how rounds are taken, and how the result is told."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest

from sparsebert.bench import (
    RANDOM_MODELS,
    Shape,
    as_csv,
    as_markdown,
    parse_engines,
    parse_shapes,
    run_bench,
    write_random_model,
)
from sparsebert.bench.engines import Engine, known_engines
from sparsebert.bench.plot import latency_figure, save_plot
from sparsebert.bench.result import BenchResult, EngineReport, Row
from sparsebert.bench.workers import Worker, WorkerError, running
from sparsebert.checkpoint import Head, open_checkpoint
from sparsebert.cli import main
from sparsebert.errors import CheckpointError, InputError, OutputError
from sparsebert.packing import pack
from sparsebert.pruning import prune

OURS = "sparsebert-fp32"


@pytest.fixture(scope="module")
def sparse(tiny_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "sparse"
    prune(tiny_bert("sequence-classification"), folder)
    return folder


def made_result() -> BenchResult:
    """Two engines at two shapes and one that is not there, with numbers to look for."""
    machine = {
        "cpu": "Difference Engine, No. 2",
        "cores": "2",
        "instruction_set": "portable",
        "system": "Linux 6.1 x86_64",
        "python": "3.11.7",
        "sparsebert": "0.1.0",
        "date": "1991-06-27 12:00 UTC",
    }
    rows = [
        Row(Shape(1, 16), OURS, 2.0, 1.9, 2.25, 1.75, 1.0),
        Row(Shape(1, 16), "torch", 5.0, 4.5, 5.5, 4.25, 2.46),
        Row(Shape(8, 128), OURS, 80.0, 79.0, 81.0, 78.5, 1.0),
        Row(Shape(8, 128), "torch", 140.0, 139.0, 150.0, 138.0, 1.77),
    ]
    engines = [
        EngineReport(OURS, None, "sparsebert 0.1.0", "portable, fp32 weights", 0.25, 3 * 2**20),
        EngineReport("torch", None, "torch 2.13.0", "eager, fp32", 3.5, 600 * 2**20),
        EngineReport("abacus", "abacus is not installed: visit a museum"),
    ]
    return BenchResult("2 layers x 32 hidden", "1:2", machine, 2, 7, OURS, engines, rows)


# --- what is asked for


def test_shapes() -> None:
    assert parse_shapes("1x16, 8X128") == [Shape(1, 16), Shape(8, 128)]
    assert parse_shapes("1x16,1x16") == [Shape(1, 16)]
    assert str(Shape(8, 128)) == "8x128"


@pytest.mark.parametrize("text", ["", "16", "1x", "x16", "0x16", "1x0", "1x16,", "1*16", "-1x16"])
def test_shapes_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="is not a shape: write BATCHxTOKENS"):
        parse_shapes(text)


def test_engines() -> None:
    assert parse_engines("torch, sparsebert-fp32,torch") == ["torch", OURS]
    with pytest.raises(InputError, match=r"no engine 'abacus': choose from .*torch"):
        parse_engines("torch,abacus")


def test_every_engine_file_is_found() -> None:
    assert {OURS, "sparsebert-fp16", "torch"} <= set(known_engines())
    assert all(isinstance(make(), Engine) for make in known_engines().values())


def test_a_shape_longer_than_the_model_takes(sparse: Path) -> None:
    with pytest.raises(InputError, match="1x65 is longer than the 64 tokens"):
        run_bench(sparse, shapes=[Shape(1, 65)], engines=[OURS])


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        run_bench(tmp_path, engines=[OURS])


# --- random models


@pytest.mark.parametrize("name", ["bert-tiny", "minilm"])
def test_random_models_are_whole_encoders(name: str, tmp_path: Path) -> None:
    write_random_model(name, tmp_path / "model")
    checkpoint = open_checkpoint(tmp_path / "model")
    size = RANDOM_MODELS[name]
    assert checkpoint.config.head is Head.ENCODER
    assert checkpoint.config.num_hidden_layers == size.layers
    assert len(checkpoint.linear_layers()) == 6 * size.layers
    weight = checkpoint.weight("encoder.layer.1.output.dense.weight")
    assert weight.shape == (size.hidden, size.intermediate)
    assert weight.std() == pytest.approx(0.02, rel=0.02)


def test_a_random_model_is_the_same_each_time(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_random_model("bert-tiny", tmp_path / folder)
    first, second = (tmp_path / folder / "model.safetensors" for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_transformers_takes_a_random_model_whole(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    write_random_model("bert-tiny", tmp_path / "model")
    model, found = transformers.BertModel.from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert sum(weight.numel() for weight in model.parameters()) == 4_385_920


# --- measuring


@pytest.mark.parametrize("packed", [False, True], ids=["sparse folder", "packed folder"])
def test_measuring_our_engine_and_torch(sparse: Path, packed: bool, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = sparse
    if packed:
        model = tmp_path / "packed"
        pack(sparse, model)
    said: list[str] = []
    result = run_bench(
        model,
        shapes=parse_shapes("1x5,3x17"),
        engines=["torch", OURS],
        threads=1,
        rounds=3,
        progress=lambda label, _done, _total: said.append(label),
    )
    assert [engine.reason for engine in result.engines] == [None, None]
    assert [(str(row.shape), row.engine) for row in result.rows] == [
        ("1x5", "torch"),
        ("1x5", OURS),
        ("3x17", "torch"),
        ("3x17", OURS),
    ]
    assert result.baseline == OURS
    assert result.pattern == "1:2"
    for row in result.rows:
        assert 0 < row.best_ms <= row.q1_ms <= row.median_ms <= row.q3_ms
        assert row.ratio is not None
        assert (row.ratio == 1) == (row.engine == OURS)
    torch, ours = result.engines
    assert "sdpa attention, 1 threads" in torch.settings
    assert ours.peak_bytes is not None
    assert torch.peak_bytes is not None
    assert ours.peak_bytes < torch.peak_bytes
    assert {"loading engines", "1x5", "3x17"} <= set(said)
    assert json.loads(json.dumps(result.as_dict(), allow_nan=False))["rows"][2]["shape"] == "3x17"


def test_packing_for_another_type_than_the_folder_has(sparse: Path, tmp_path: Path) -> None:
    pack(sparse, tmp_path / "packed", dtype="fp16")
    folder = known_engines()[OURS]().prepare(tmp_path / "packed", tmp_path)
    assert folder != tmp_path / "packed"
    assert known_engines()["sparsebert-fp16"]().prepare(tmp_path / "packed", tmp_path) == (
        tmp_path / "packed"
    )


class _Clockwork:
    """Stands in for a worker: each turn takes the next of its times."""

    def __init__(self, engine: str, seconds: list[float], log: list[str]) -> None:
        self.engine, self._seconds, self._log = engine, iter(seconds), log

    def ask(self, do: str, **arguments: object) -> dict[str, object]:
        if do != "run":
            return {"seconds": 0.5, "about": {"version": "1", "settings": ""}, "peak_bytes": 7}
        self._log.append(self.engine)
        second = next(self._seconds)
        if second < 0:
            raise WorkerError("a cog broke")
        return {"seconds": [second] * int(str(arguments["calls"]))}


@pytest.fixture
def clockwork(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Replaces the workers of named engines by ones with given times; returns the log of turns."""

    def install(**times: list[float]) -> list[str]:
        log: list[str] = []

        class Stub(Engine):
            def missing(self) -> str | None:
                return None

            def load(self, folder: Path, threads: int) -> None: ...

            def run(self, ids: npt.NDArray[np.int64]) -> None: ...

            def about(self) -> dict[str, str]:
                return {}

        from contextlib import nullcontext

        monkeypatch.setattr(
            "sparsebert.bench.run.known_engines", lambda: dict.fromkeys(times, Stub)
        )
        monkeypatch.setattr("sparsebert.bench.run.parse_engines", lambda text: text.split(","))
        monkeypatch.setattr(
            "sparsebert.bench.run.running",
            lambda name, _threads: nullcontext(_Clockwork(name, times[name], log)),
        )
        monkeypatch.setattr("sparsebert.bench.run._SETTLE_SECONDS", 0)
        return log

    return install


def test_rounds_are_interleaved_and_ratios_are_taken_inside_them(
    sparse: Path, clockwork: Callable[..., list[str]]
) -> None:
    # The machine becomes ten times slower after the second round; the ratio is 2 all the while.
    log = clockwork(
        peer=[9.0, 0.2, 0.2, 2.0, 2.0, 2.0], **{"sparsebert-x": [9.0, 0.1, 0.1, 1.0, 1.0, 1.0]}
    )
    result = run_bench(sparse, shapes=[Shape(1, 4)], engines=["peer", "sparsebert-x"], rounds=5)
    assert log == ["peer", "sparsebert-x"] * 6
    peer, ours = result.rows
    assert peer.ratio == pytest.approx(2)
    assert ours.ratio == 1
    assert (peer.median_ms, peer.best_ms, peer.q1_ms) == pytest.approx((2000, 200, 200))
    assert (ours.median_ms, ours.q3_ms) == pytest.approx((1000, 1000))


def test_an_engine_that_fails_is_named_and_the_others_go_on(
    sparse: Path, clockwork: Callable[..., list[str]]
) -> None:
    clockwork(peer=[1.0, 1.0, -1.0], **{"sparsebert-x": [1.0] * 8})
    result = run_bench(
        sparse, shapes=[Shape(1, 4), Shape(1, 8)], engines=["peer", "sparsebert-x"], rounds=2
    )
    assert result.engines[0].reason == "at 1x4: a cog broke"
    assert [row.engine for row in result.rows] == ["sparsebert-x", "sparsebert-x"]


def test_an_engine_that_is_not_installed_is_named(
    sparse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparsebert.bench.engines.torch.find_spec", lambda _name: None)
    result = run_bench(sparse, shapes=[Shape(1, 4)], engines=["torch", OURS], rounds=1)
    assert result.engines[0].reason == ("torch is not installed: pip install 'sparsebert[bench]'")
    assert {row.engine for row in result.rows} == {OURS}


# --- workers


def test_what_goes_wrong_in_a_worker_comes_back(tmp_path: Path) -> None:
    with running(OURS, 1) as worker:
        with pytest.raises(WorkerError, match="CheckpointError"):
            worker.ask("load", folder=str(tmp_path), threads=1)
        with pytest.raises(WorkerError, match="cannot 'sing'"):
            worker.ask("sing")
        assert worker.ask("memory")["peak_bytes"] > 2**20


def test_a_worker_that_dies_says_so() -> None:
    worker = Worker("no-such-engine", 1)
    with pytest.raises(WorkerError, match=r"its process ended with 1: KeyError.*no-such-engine"):
        worker.ask("memory")
    worker.stop()


# --- telling it


def test_markdown() -> None:
    text = as_markdown(made_result())
    assert "model: 2 layers x 32 hidden, 1:2" in text
    assert "Difference Engine, No. 2, 2 cores, portable" in text
    assert "2 threads, 7 interleaved rounds, 1991-06-27 12:00 UTC" in text
    assert "| torch | torch 2.13.0 | eager, fp32 | 3.50 | 600 |" in text
    assert "| abacus | not run: abacus is not installed: visit a museum | | | |" in text
    assert "| 8x128 | torch | 140.00 | 139.00 - 150.00 | 138.00 | 1.77 |" in text
    assert "time / sparsebert-fp32's" in text


def test_csv() -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(made_result()))))
    assert [line["engine"] for line in lines] == [OURS, OURS, "torch", "torch", "abacus"]
    torch = lines[3]
    assert (torch["shape"], torch["median_ms"], torch["ratio"]) == ("8x128", "140.0", "1.77")
    assert torch["cpu"] == "Difference Engine, No. 2"
    assert (lines[4]["median_ms"], lines[4]["not_run"][:6]) == ("", "abacus")


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = latency_figure(made_result())
    assert len(figure.axes) == 2
    widths = [bar.get_width() for bar in figure.axes[1].patches]
    assert widths == [80.0, 140.0]
    save_plot(made_result(), tmp_path / "plot.svg")
    assert ElementTree.parse(tmp_path / "plot.svg").getroot().tag.endswith("svg")
    with pytest.raises(OutputError, match="could not be written"):
        save_plot(made_result(), tmp_path / "no" / "such" / "folder.svg")


def test_the_command(sparse: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "plot.svg"
    arguments = ["bench", str(sparse), "--shapes", "1x4,2x6", "--engines", OURS, "--threads", "1"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--rounds", "2", "-o", "json", "--plot", str(plot)])
    out, error = capfd.readouterr()
    assert end.value.code == 0, error
    found = json.loads(out)
    assert [row["shape"] for row in found["rows"]] == ["1x4", "2x6"]
    assert (found["threads"], found["rounds"]) == (1, 2)
    assert plot.is_file()


def test_the_command_makes_a_model_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(
            [
                "bench",
                "--random",
                "bert-tiny",
                "--shapes",
                "1x4",
                "--engines",
                OURS,
                "--rounds",
                "1",
            ]
        )
    out, error = capfd.readouterr()
    assert end.value.code == 0, error
    assert "model: 2 layers x 128 hidden, encoder, 1:2" in out
