"""Every engine that is installed computes the model: its answers beside transformers' own."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkout import BENCHMARKS, load_script
from sparsebert.bench import Shape, run_bench
from sparsebert.bench.engines import known_engines, onnx_folder
from sparsebert.bench.worker import Batch, Engine

# Root mean square, of outputs whose own is 1. What a peer loses in int8 is its affair; that it
# computes this model at all, and with the padding left out, is ours.
TOLERANCE = {"fp32": 1e-5, "fp16": 1e-3, "bf16": 0.02, "int8": 0.2}

SLOW = {"torch-compile"}  # half a minute of compiling
NAMES = sorted(set(known_engines()) - SLOW)
VARIABLE = "SPARSEBERT_DEEPSPARSE_PYTHON"


@pytest.fixture(scope="module")
def model(tiny_bert: Callable[..., Path]) -> Path:
    return tiny_bert("encoder", hidden_size=64, num_attention_heads=2, intermediate_size=128)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exports are made once and used by several engines, as in a bench."""
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    random = np.random.default_rng(3)

    def batch(*lengths: int) -> Batch:
        return Batch.of([random.integers(5, 60, length).tolist() for length in lengths])

    return [batch(9), batch(17, 3, 11), batch(5, 5)]


@pytest.fixture(scope="module")
def expected(model: Path, batches: list[Batch]) -> list[list[Any]]:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    network = transformers.AutoModel.from_pretrained(model).eval()
    with torch.inference_mode():
        return [
            [
                network(torch.from_numpy(sequence)[None]).last_hidden_state[0].numpy()
                for sequence in batch.sequences
            ]
            for batch in batches
        ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")  # what exporters and quantisers say to their libraries
def test_it_computes_the_model(
    name: str, model: Path, workspace: Path, batches: list[Batch], expected: list[list[Any]]
) -> None:
    engine = known_engines()[name]()
    assert isinstance(engine, Engine)
    if (reason := engine.missing()) is not None:
        pytest.skip(reason)
    folder = engine.prepare(model, workspace / ("ours" if not engine.cacheable else "peers"))
    engine.start()
    engine.load(folder, 1)
    for batch, rows in zip(batches, expected):
        output = engine.run(batch)
        for index, row in enumerate(rows):
            found = np.asarray(output[index], np.float32)[: len(row)]
            error = np.sqrt(np.mean((found - row) ** 2))
            assert error < TOLERANCE["fp16" if name.endswith("fp16") else engine.precision]
    about = engine.about()
    assert about["version"]
    assert about["settings"]


@pytest.mark.filterwarnings("ignore")
def test_onnx_runtime_has_a_fused_graph(model: Path, workspace: Path) -> None:
    for precision, operators in {
        "fp32": {"2 Attention", "2 BiasGelu", "4 SkipLayerNormalization"},
        "int8": {"2 QAttention", "2 BiasGelu", "4 SkipLayerNormalization"},
    }.items():
        engine = known_engines()[f"onnxruntime-{precision}"]()
        if (reason := engine.missing()) is not None:
            pytest.skip(reason)
        folder = engine.prepare(model, workspace / "peers")
        told = (folder / "operators.txt").read_text(encoding="utf-8").split(", ")
        assert operators <= set(told)


@pytest.fixture
def deepsparse() -> Iterator[None]:
    """DeepSparse among the engines, as benchmarks/beside_deepsparse.py adds it."""
    before = dict(known_engines())
    load_script(BENCHMARKS / "beside_deepsparse.py").register()
    yield
    known_engines().clear()
    known_engines().update(before)


@pytest.mark.usefixtures("deepsparse")
def test_deepsparse_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = known_engines()["deepsparse-fp32"]()
    monkeypatch.delenv(VARIABLE, raising=False)
    assert "pip install deepsparse==1.8.0" in str(setup.missing())
    monkeypatch.setenv(VARIABLE, "/no/such/python")
    assert setup.missing() == f"{VARIABLE} is /no/such/python, which is not a program"


@pytest.mark.usefixtures("deepsparse")
def test_deepsparse_leaves_the_export_as_it_is(model: Path, tmp_path: Path) -> None:
    if (reason := known_engines()["deepsparse-fp32"]().missing()) is not None:
        pytest.skip(reason)
    result = run_bench(
        model,
        shapes=[Shape(1, 4), Shape(2, 8)],
        engines=["deepsparse-fp32"],
        threads=1,
        rounds=1,
        cache=tmp_path,
    )
    assert result.engines[0].reason is None
    assert [str(row.shape) for row in result.rows] == ["1x4", "2x8"]
    (export,) = tmp_path.glob("*/onnx")
    onnx_folder(model, tmp_path / "again")
    again = (tmp_path / "again" / "onnx" / "model.onnx").read_bytes()
    assert (export / "model.onnx").read_bytes() == again


@pytest.mark.thorough
@pytest.mark.usefixtures("deepsparse")
def test_a_python_without_deepsparse(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if importlib.util.find_spec("deepsparse") or importlib.util.find_spec("onnx") is None:
        pytest.skip("DeepSparse is installed here, or onnx is not: pip install '.[bench]'")
    monkeypatch.setenv(VARIABLE, sys.executable)
    result = run_bench(model, shapes=[Shape(1, 4)], engines=["deepsparse-fp32"], rounds=1)
    assert result.engines[0].reason == "ModuleNotFoundError: No module named 'deepsparse'"
