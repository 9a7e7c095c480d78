"""Measuring: what is asked for, how rounds are taken, and how the result is told."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer

from embedding_folders import splade
from sparsebert.bench import (
    RANDOM_MODELS,
    Shape,
    default_engines,
    parse_engines,
    parse_shapes,
    run_bench,
    write_random_model,
)
from sparsebert.bench import worker as worker_file
from sparsebert.bench.engines import known_engines, once
from sparsebert.bench.run import _cache_of
from sparsebert.bench.worker import Batch, Setup
from sparsebert.bench.worker_client import Worker, WorkerError, running
from sparsebert.checkpoint import Head, open_checkpoint
from sparsebert.cli import main
from sparsebert.cli.app import app
from sparsebert.errors import CheckpointError, InputError, OutputError
from sparsebert.inference import load
from sparsebert.inference.texts import as_texts
from sparsebert.packing import pack
from sparsebert.pruning import prune

OURS = "sparsebert-fp32"


@pytest.fixture(scope="module")
def sparse(tiny_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "sparse"
    prune(tiny_bert("sequence-classification"), folder)
    return folder


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
    with pytest.raises(InputError, match=r"no engine 'abacus': `sparsebert bench --help` lists"):
        parse_engines("torch,abacus")


def test_help_lists_every_engine() -> None:
    (help,) = (
        each.help
        for each in typer.main.get_command(app).commands["bench"].params
        if each.name == "engines"
    )
    listed = help.partition(": ")[2].rstrip(".").replace(" or ", ", ").split(", ")
    assert sorted(listed) == sorted(known_engines())


def test_every_engine_file_is_found() -> None:
    found = {name: make() for name, make in known_engines().items()}
    assert {OURS, "sparsebert-dense-fp32", "torch", "openvino-int8"} <= set(found)
    for name, setup in found.items():
        assert isinstance(setup, Setup)
        assert setup.ragged == (not setup.cacheable) == name.startswith("sparsebert")
        if name in ("torch", "torch-compile", "sparsebert-fp16"):  # fp16 is how weights are stored
            assert setup.precision == "fp32"
        else:
            assert "-" not in name or name.endswith(f"-{setup.precision}")


def test_engines_that_are_not_installed_are_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsebert.bench.engines.find_spec", lambda _name: None)
    assert default_engines() == ["sparsebert-int8", "sparsebert-fp32"]
    monkeypatch.setattr(
        "sparsebert.bench.engines.find_spec", lambda name: name != "openvino" or None
    )
    assert "onnxruntime-int8" in default_engines()
    assert "openvino-int8" not in default_engines()


def test_the_same_weights_in_two_precisions(sparse: Path) -> None:
    names = [OURS, "sparsebert-bf16"]
    result = run_bench(sparse, shapes=[Shape(1, 8)], engines=names, rounds=1)
    assert [row.engine for row in result.rows] == names
    bf16 = result.engines[1]
    assert bf16.precision == "bf16"
    assert "fp32 weights, bf16 " in (bf16.settings or "")


def test_a_splade_model_is_run_for_its_sparse_embeddings(
    tiny_bert: Callable[..., Path], tmp_path: Path
) -> None:
    """Not for the logits of every token, which nobody asks of it."""
    pytest.importorskip("sentence_transformers")
    folder = splade(tmp_path / "splade", tiny_bert("masked-lm"))
    engine = known_engines()[OURS]()
    engine.load(engine.prepare(folder, tmp_path), 1)
    model = load(folder, threads=1)
    ids = [tokens.ids.tolist() for tokens in model.tokenizer.encode(as_texts(["a wall", "noon"]))]
    expected = model.embed_sparse(["a wall", "noon"])
    for found, wanted in zip(engine.run(Batch.of(ids)), expected, strict=True):
        assert found.as_dict() == pytest.approx(wanted.as_dict(), abs=1e-5)
    assert "pooled to sparse embeddings" in engine.about()["settings"]


def test_a_shape_longer_than_the_model_takes(sparse: Path) -> None:
    with pytest.raises(InputError, match="1x65 is longer than the 64 tokens"):
        run_bench(sparse, shapes=[Shape(1, 65)], engines=[OURS])


def test_nothing_to_measure(sparse: Path) -> None:
    with pytest.raises(InputError, match="nothing to measure: pass shapes or texts"):
        run_bench(sparse, shapes=[], engines=[OURS])


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


@pytest.mark.parametrize("name", RANDOM_MODELS)
def test_transformers_takes_a_random_model_whole(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    size = RANDOM_MODELS[name]
    if name != "bert-tiny":  # of the same form, and small
        narrow = replace(size, layers=2, hidden=2 * size.heads, intermediate=20)
        monkeypatch.setitem(RANDOM_MODELS, name, narrow)
    write_random_model(name, tmp_path / "model")
    model, found = transformers.AutoModel.from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert not any(found.values())
    if name == "bert-tiny":
        assert sum(weight.numel() for weight in model.parameters()) == 4_385_920


# --- measuring


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(False, id="sparse folder"),
        pytest.param(True, id="packed folder", marks=pytest.mark.thorough),
    ],
)
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
    for engine in result.engines:
        assert engine.load_seconds is not None
        assert engine.first_answer_seconds is not None
        assert engine.first_answer_seconds > engine.load_seconds
    assert {"loading torch", f"loading {OURS}", "1x5", "3x17"} <= set(said)
    assert json.loads(json.dumps(result.as_dict(), allow_nan=False))["rows"][2]["shape"] == "3x17"


def test_packing_for_another_type_than_the_folder_has(sparse: Path, tmp_path: Path) -> None:
    pack(sparse, tmp_path / "packed", dtype="fp16")
    folder = known_engines()[OURS]().prepare(tmp_path / "packed", tmp_path)
    assert folder != tmp_path / "packed"
    assert known_engines()["sparsebert-fp16"]().prepare(tmp_path / "packed", tmp_path) == (
        tmp_path / "packed"
    )


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("sparsebert-int8", "int8"),
        ("sparsebert-dense-int8", "int8"),
        ("sparsebert-fp32", "fp32"),
        ("sparsebert-fp16", "fp32"),
        ("sparsebert-bf16", "bf16"),
    ],
)
def test_our_engines_are_compared_in_the_precision_that_they_compute_in(
    name: str, precision: str
) -> None:
    assert known_engines()[name]().precision == precision


class _Clockwork:
    """Stands in for a worker: each turn takes the next of its times."""

    def __init__(self, engine: str, seconds: list[float], log: list[str]) -> None:
        self.engine, self._seconds, self._log = engine, iter(seconds), log

    def request(self, do: str, **arguments: object) -> dict[str, object]:
        if do == "memory" and self.engine == "forgetful":
            raise WorkerError("it does not remember")
        if do != "run":
            about = {"version": "1", "settings": ""}
            return {"seconds": 0.5, "first_answer_seconds": 1, "about": about, "peak_bytes": 7}
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

        class Stub(Setup):
            prepares = False

            def missing(self) -> str | None:
                return None

            def command(self, name: str) -> list[str]:
                return [name]

        monkeypatch.setattr(
            "sparsebert.bench.run.known_engines", lambda: dict.fromkeys(times, Stub)
        )
        monkeypatch.setattr("sparsebert.bench.run.parse_engines", lambda text: text.split(","))
        monkeypatch.setattr(
            "sparsebert.bench.run.running",
            lambda command, *_: nullcontext(_Clockwork(command[0], times[command[0]], log)),
        )
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
    assert ours.samples_ms == pytest.approx((100, 100, 1000, 1000, 1000))
    assert ours.texts_per_second == pytest.approx(1)
    (found,) = result.comparisons()
    assert (found.engine, found.peer.peer, found.peer.median) == ("sparsebert-x", "peer", 2)
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


def test_ratios_are_left_out_where_the_engine_they_compare_with_stopped(
    sparse: Path, clockwork: Callable[..., list[str]]
) -> None:
    ours = {"sparsebert-x": [1.0, 1.0, -1.0], "sparsebert-y": [2.0] * 4}
    clockwork(**ours, peer=[4.0] * 4)
    shapes = [Shape(1, 4), Shape(1, 8)]
    result = run_bench(sparse, shapes=shapes, engines=[*ours, "peer"], rounds=1)
    assert result.baseline == "sparsebert-x"
    assert [(row.engine, row.ratio) for row in result.rows] == [
        ("sparsebert-x", 1),
        ("sparsebert-y", 2),
        ("peer", 4),
        ("sparsebert-y", None),
        ("peer", None),
    ]


def test_an_engine_that_fails_at_the_very_end_keeps_its_rows(
    sparse: Path, clockwork: Callable[..., list[str]]
) -> None:
    clockwork(forgetful=[1.0] * 2, **{"sparsebert-x": [1.0] * 2})
    result = run_bench(
        sparse, shapes=[Shape(1, 4)], engines=["forgetful", "sparsebert-x"], rounds=1
    )
    assert result.engines[0].reason == "at the end: it does not remember"
    assert len(result.rows) == 2


def test_fast_engines_run_more_often_in_a_sample(
    sparse: Path, monkeypatch: pytest.MonkeyPatch, clockwork: Callable[..., list[str]]
) -> None:
    asked: list[tuple[str, int, int]] = []
    request = _Clockwork.request

    def spy(self: _Clockwork, do: str, **arguments: object) -> dict[str, object]:
        if do == "run":
            asked.append(
                (self.engine, int(str(arguments["warm_up"])), int(str(arguments["calls"])))
            )
        return request(self, do, **arguments)

    monkeypatch.setattr(_Clockwork, "request", spy)
    clockwork(
        slow=[2.0] * 2, quick=[0.05] * 3, cold=[0.03, 0.001, 0.001, 0.001], instant=[1e-7] * 3
    )
    names = ["slow", "quick", "cold", "instant"]
    run_bench(sparse, shapes=[Shape(1, 4)], engines=names, rounds=1)
    assert [each for each in asked if each[0] == "slow"] == [("slow", 1, 1), ("slow", 0, 1)]
    calls = {name: [calls for engine, _, calls in asked if engine == name] for name in names[1:]}
    # What a process does first is slow: it counts again until what it counted fills a sample.
    assert calls == {"quick": [1, 3, 3], "cold": [1, 5, 150, 150], "instant": [1, 1000, 1000]}
    assert {warm_up for engine, warm_up, _ in asked if engine != "slow"} == {1}


def test_an_engine_that_is_not_installed_is_named(
    sparse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparsebert.bench.engines.find_spec", lambda _name: None)
    result = run_bench(sparse, shapes=[Shape(1, 4)], engines=["torch", OURS], rounds=1)
    assert result.engines[0].reason == ("torch is not installed: pip install 'sparsebert[bench]'")
    assert {row.engine for row in result.rows} == {OURS}


def test_nothing_measured_is_a_failure(
    sparse: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sparsebert.bench.engines.find_spec", lambda _name: None)
    with pytest.raises(SystemExit) as end:
        main(["bench", str(sparse), "--shapes", "1x4", "--engines", "torch"])
    assert end.value.code == 1
    assert "torch is not installed" in capfd.readouterr().out


# --- caching


def test_exports_are_kept_for_the_same_weights_only(sparse: Path, tmp_path: Path) -> None:
    cache, other = tmp_path / "cache", tmp_path / "other"
    first = _cache_of(sparse, cache)
    nested = tmp_path / "nested"
    shutil.copytree(sparse, nested / "0_Transformer")
    modules = [{"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    (nested / "modules.json").write_text(json.dumps(modules))
    assert _cache_of(nested, cache) == first
    assert first.is_dir()
    assert _cache_of(sparse, cache) == first
    shutil.copytree(sparse, other)
    assert _cache_of(other, cache) == first
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    assert _cache_of(other, cache) != first
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="the cache .*file cannot be used"):
        _cache_of(sparse, tmp_path / "file")


def test_half_an_export_is_never_found(tmp_path: Path) -> None:
    made: list[Path] = []

    def fails(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError("no room")

    def works(folder: Path) -> None:
        (folder / "whole").touch()
        made.append(folder)

    with pytest.raises(RuntimeError):
        once(tmp_path / "export", fails)
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        assert once(tmp_path / "export", works) == tmp_path / "export"
    assert [file.name for file in (tmp_path / "export").iterdir()] == ["whole"]
    assert len(made) == 1


# --- workers


def batches_file(folder: Path, batches: list[list[list[int]]]) -> str:
    file = folder / "batches.json"
    file.write_text(json.dumps(batches), encoding="utf-8")
    return str(file)


def test_what_goes_wrong_in_a_worker_comes_back(tmp_path: Path) -> None:
    with running(known_engines()[OURS]().command(OURS), {}, 1) as worker:
        with pytest.raises(WorkerError, match="CheckpointError"):
            batches = batches_file(tmp_path, [[[1, 2]]])
            worker.request("load", folder=str(tmp_path), threads=1, batches=batches)
        with pytest.raises(WorkerError, match="cannot 'sing'"):
            worker.request("sing")
        assert worker.request("memory")["peak_bytes"] > 2**20


def test_a_worker_that_dies_says_so() -> None:
    worker = Worker(known_engines()[OURS]().command("no-such-engine"), {}, 1)
    with pytest.raises(
        WorkerError, match=r"its process ended with exit code 1: KeyError.*no-such-engine"
    ):
        worker.request("memory")
    worker.stop()


def test_a_worker_that_does_not_start() -> None:
    with (
        pytest.raises(WorkerError, match="its process could not be started"),
        running(["/no/such/python"], {}, 1),
    ):
        pass


def test_a_worker_in_another_python_needs_numpy_alone(tmp_path: Path) -> None:
    """As DeepSparse's: `worker.py` run by its path, where sparsebert cannot be imported."""
    script = tmp_path / "abacus.py"
    script.write_text(
        f"""
import runpy, sys
sys.modules["sparsebert"] = None

class Abacus:
    def start(self): self.calls = []
    def load(self, folder, threads): self.threads = threads
    def run(self, batch): self.calls.append((batch.ids.tolist(), batch.mask.tolist()))
    def about(self): return {{"version": str(self.threads), "settings": str(self.calls)}}

runpy.run_path({str(Path(worker_file.__file__))!r})["serve"](Abacus())
""",
        encoding="utf-8",
    )
    batches = batches_file(tmp_path, [[[5, 6, 7], [8]]])
    with running([sys.executable, str(script)], {}, 3) as worker:
        answer = worker.request("load", folder="/", threads=3, batches=batches)
        assert answer["about"]["version"] == "3"
        assert answer["about"]["settings"] == "[([[5, 6, 7], [8, 0, 0]], [[1, 1, 1], [1, 0, 0]])]"
        assert answer["first_answer_seconds"] >= answer["seconds"] >= 0
        seconds = worker.request("run", batches=batches, warm_up=2, calls=5)["seconds"]
        assert len(seconds) == 5


def test_a_turn_ends_when_the_engine_s_threads_sleep() -> None:
    stop = time.perf_counter() + 0.2

    def spin() -> None:
        while time.perf_counter() < stop:
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    worker_file._wait_until_idle()
    assert time.perf_counter() >= stop - 0.02
    thread.join()
    start = time.perf_counter()
    worker_file._wait_until_idle()
    assert time.perf_counter() - start < 0.1


def test_a_batch_is_ragged_and_padded() -> None:
    batch = Batch.of([[3, 4, 5], [6], [7, 8]])
    assert [sequence.tolist() for sequence in batch.sequences] == [[3, 4, 5], [6], [7, 8]]
    assert batch.ids.tolist() == [[3, 4, 5], [6, 0, 0], [7, 8, 0]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert not batch.types.any()
    assert {batch.ids.dtype, batch.mask.dtype, batch.types.dtype} == {np.dtype(np.int64)}


# --- the command


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


@pytest.mark.parametrize(
    ("options", "pattern"), [([], "1:2"), (["--shared-rows", "32"], "1:2 shared by 32 rows")]
)
def test_the_command_makes_a_model_by_itself(
    options: list[str], pattern: str, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bench", "--random", "bert-tiny", "--shapes", "1x4", "--engines", OURS, *options]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--rounds", "1", "-o", "json"])
    out, error = capfd.readouterr()
    assert end.value.code == 0, error
    found = json.loads(out)
    assert (found["model"], found["pattern"]) == ("2 layers x 128 hidden, encoder", pattern)


def test_options_that_do_not_apply_are_refused(
    sparse: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for arguments, why in (
        ([str(sparse), "--shared-rows", "32"], "only applies with --random"),
        ([str(sparse), "--batch", "8"], "only applies with --texts"),
        ([str(sparse), "--tokenizer", str(sparse)], "only applies with --texts"),
        (["--random", "bert-tiny", "--shared-rows", "24"], "cannot be shared by 24 rows"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["bench", *arguments])
        assert end.value.code == 2
        assert why in " ".join(capfd.readouterr().err.replace("│", " ").split())
