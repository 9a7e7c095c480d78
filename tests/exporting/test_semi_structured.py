"""Exports to torch's 2:4 tensors: which layers fit, what is written, and loading them on a GPU.

Without a GPU everything is held but the tensors themselves: torch makes and multiplies them on
NVIDIA's alone. Its conversion to their layout and back does run on a CPU, and shows here that each
of our matrices survives it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.cli.app import app
from sparsebert.errors import (
    CheckpointError,
    EngineError,
    InputError,
    MissingExtraError,
    PatternError,
)
from sparsebert.exporting import export, load_torch_2to4
from sparsebert.exporting.semi_structured import (
    COLUMN_MULTIPLE,
    DTYPES,
    ROW_MULTIPLE,
    TWO_OF_FOUR,
    plan_semi_structured,
    replace_weights,
)
from sparsebert.inference import load
from sparsebert.packing import pack
from sparsebert.patterns import count_broken_groups
from sparsebert.pruning import prune
from sparsebert.torch_models import load_torch_model

torch = pytest.importorskip("torch")

TinyBert = Callable[..., Path]
FITTING = {"hidden_size": 64, "intermediate_size": 128}
SEQUENCES = [[2, 17, 8, 40, 3], [2, 9, 3], [2, 30, 31, 32, 33, 34, 35, 3]]


@pytest.fixture(scope="module")
def dense(tiny_bert: TinyBert) -> Path:
    return tiny_bert("sequence-classification", **FITTING)


@pytest.fixture(scope="module")
def sparse(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sparse") / "model"
    prune(dense, folder)
    return folder


def through_cutlass(weight: Any) -> Any:
    """A matrix through torch's own compressed form and back."""
    from torch.sparse._semi_structured_conversions import (
        sparse_semi_structured_from_dense_cutlass,
        sparse_semi_structured_to_dense_cutlass,
    )

    values, places = sparse_semi_structured_from_dense_cutlass(weight)
    assert values.shape == (weight.shape[0], weight.shape[1] // 2)
    return sparse_semi_structured_to_dense_cutlass(values, places)


def test_the_multiples_are_those_of_torch() -> None:
    from torch.sparse import (
        SparseSemiStructuredTensorCUSPARSELT,
        SparseSemiStructuredTensorCUTLASS,
    )

    for dtype in DTYPES:
        wanted = [
            backend._DTYPE_SHAPE_CONSTRAINTS[getattr(torch, dtype)]
            for backend in (SparseSemiStructuredTensorCUTLASS, SparseSemiStructuredTensorCUSPARSELT)
        ]
        assert max(each.sparse_min_rows for each in wanted) == ROW_MULTIPLE
        assert max(each.sparse_min_cols for each in wanted) == COLUMN_MULTIPLE


def test_every_exported_matrix_survives_torchs_compression(sparse: Path, tmp_path: Path) -> None:
    result = export(sparse, tmp_path / "out", to="torch-2to4")
    assert (result.layers, result.left_dense) == (12, {})
    checkpoint = open_checkpoint(tmp_path / "out")
    plan = plan_semi_structured(checkpoint)
    assert (
        plan.sparse == tuple(read_masks(checkpoint)) == tuple(read_masks(open_checkpoint(sparse)))
    )
    for name in plan.sparse:
        weight = checkpoint.weight(name)
        assert count_broken_groups(weight, TWO_OF_FOUR) == 0
        for dtype in DTYPES:
            half = torch.tensor(weight).to(getattr(torch, dtype))
            assert torch.equal(through_cutlass(half), half)


def test_a_dense_matrix_would_not(dense: Path) -> None:
    """That the check above can fail: of a dense matrix torch's form keeps but half."""
    checkpoint = open_checkpoint(dense)
    name = "encoder.layer.0.intermediate.dense.weight"
    half = torch.tensor(checkpoint.weight(name)).half()
    assert not torch.equal(through_cutlass(half), half)


def test_the_folder_is_the_model_in_float16(sparse: Path, tmp_path: Path) -> None:
    import transformers

    out = tmp_path / "out"
    result = export(sparse, out, to="torch-2to4")
    before, after = load_file(sparse / "model.safetensors"), load_file(out / "model.safetensors")
    assert set(before) == set(after)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values.astype(np.float16))
    assert result.bytes == (out / "model.safetensors").stat().st_size
    network = transformers.AutoModelForSequenceClassification.from_pretrained(out)
    assert network.dtype == torch.float16
    exact, half = (load(folder, threads=1).forward(SEQUENCES) for folder in (sparse, out))
    np.testing.assert_allclose(half, exact, atol=5e-3)
    config = json.loads((out / "config.json").read_text())
    assert config["sparsity"]["lineage"][-1]["arguments"] == {"to": "torch-2to4"}
    assert 'sparsebert.load_torch_2to4("path/to/this/folder")' in (out / "README.md").read_text()


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "mpnet", "modernbert"])
def test_weights_are_replaced_where_the_plan_says(
    tiny_bert: TinyBert, tmp_path: Path, model_type: str
) -> None:
    """What `load_torch_2to4` does on a GPU, with torch's compressed form read back to dense."""
    prune(tiny_bert("encoder", model_type=model_type, **FITTING), tmp_path / "sparse")
    checkpoint = open_checkpoint(tmp_path / "sparse")
    plan = plan_semi_structured(checkpoint)
    assert set(plan.sparse) == set(read_masks(checkpoint))
    network = load_torch_model(tmp_path / "sparse", dtype=torch.float16)
    ids = torch.tensor([SEQUENCES[2]])
    with torch.inference_mode():
        expected = network(ids).last_hidden_state
    converted = []

    def convert(weight: Any) -> Any:
        converted.append(weight)
        return through_cutlass(weight)

    replace_weights(network, checkpoint, plan.sparse, convert)
    assert len(converted) == len(plan.sparse)
    with torch.inference_mode():
        assert torch.equal(network(ids).last_hidden_state, expected)
    # And they are the ones that the network computes with.
    replace_weights(network, checkpoint, plan.sparse[-1:], torch.zeros_like)
    with torch.inference_mode():
        assert not torch.equal(network(ids).last_hidden_state, expected)


class TestLayersThatDoNotFit:
    def test_shapes(self, tiny_bert: TinyBert, tmp_path: Path) -> None:
        model = tiny_bert("encoder", hidden_size=64, intermediate_size=72)
        prune(model, tmp_path / "sparse")
        out = tmp_path / "out"
        result = export(tmp_path / "sparse", out, to="torch-2to4")
        assert result.layers == 8  # attention's; 72 is a multiple of neither 32 nor 64
        why = "is not a multiple of [32, 64]"
        assert result.left_dense == {
            f"encoder.layer.{number}.{name}.weight": f"its shape {shape} {why}"
            for number in (0, 1)
            for name, shape in (("intermediate.dense", [72, 64]), ("output.dense", [64, 72]))
        }
        arguments = ["export", str(tmp_path / "sparse"), str(out), "--to", "torch-2to4", "--force"]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        assert "8 layers fit 2:4 tensors" in done.stdout
        assert (
            "left dense: encoder.layer.0.intermediate.dense.weight: its shape [72, 64] is not"
            in done.stdout
        )

    def test_patterns(self, dense: Path, tmp_path: Path) -> None:
        prune(dense, tmp_path / "sparse", pattern="2:4", parts=["encoder"])
        model = tmp_path / "sparse"
        tensors = dict(load_file(model / "model.safetensors"))
        name = "bert.encoder.layer.1.output.dense.weight"
        weight = tensors[name].reshape(64, -1, 8)
        weight[:] = [1, 1, 1, 1, 0, 0, 0, 0]  # 4:8, and no 2:4
        save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
        (model / "masks.safetensors").unlink()
        config = json.loads((model / "config.json").read_text())
        del config["sparsity"]
        (model / "config.json").write_text(json.dumps(config))
        plan = plan_semi_structured(open_checkpoint(model))
        assert len(plan.sparse) == 11
        assert plan.told() == "encoder.layer.1.output.dense.weight (its 4:8 is not 2:4)"

    def test_no_layer_at_all(self, tiny_bert: TinyBert, dense: Path, tmp_path: Path) -> None:
        with pytest.raises(PatternError, match="no layer is pruned. Prune a model"):
            export(dense, tmp_path / "out", to="torch-2to4")
        prune(tiny_bert(), tmp_path / "small")  # hidden size 32
        with pytest.raises(PatternError, match="none of its pruned layers fits: encoder.layer.0"):
            export(tmp_path / "small", tmp_path / "out", to="torch-2to4")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("value", "wrong"),
    [(7e4, "contains 70000, beyond float16's maximum.*onnx"), (np.nan, "NaN or infinite")],
)
def test_values_that_float16_does_not_hold(
    sparse: Path, tmp_path: Path, value: float, wrong: str
) -> None:
    model = tmp_path / "model"
    prune(sparse, model)
    tensors = dict(load_file(model / "model.safetensors"))
    tensors["classifier.bias"][1] = value
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"'classifier.bias' .*{wrong}"):
        export(model, tmp_path / "out", to="torch-2to4")
    assert not (tmp_path / "out").exists()


def test_a_packed_model_is_unpacked_on_the_way(sparse: Path, tmp_path: Path) -> None:
    pack(sparse, tmp_path / "packed")
    result = export(tmp_path / "packed", tmp_path / "out", to="torch-2to4")
    assert result.layers == 12
    export(sparse, tmp_path / "straight", to="torch-2to4")
    one, two = (load_file(tmp_path / each / "model.safetensors") for each in ("out", "straight"))
    assert all(np.array_equal(one[name], two[name]) for name in two)


class TestLoading:
    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_without_a_gpu(self, sparse: Path) -> None:
        for device in ("cuda", "cpu"):
            with pytest.raises(
                EngineError, match="2:4 tensors need an NVIDIA GPU of compute .*8.0"
            ):
                load_torch_2to4(sparse, device=device)

    @pytest.fixture
    def gpu(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """``gpu(7, 5)``: torch says that there is one of this capability."""

        def say(*capability: int) -> None:
            monkeypatch.setattr(torch.version, "cuda", "13.0")
            monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
            monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
            monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
            monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Tesla T4")

        return say

    def test_an_older_gpu(self, sparse: Path, gpu: Callable[..., None]) -> None:
        gpu(7, 5)
        with pytest.raises(
            EngineError, match="but Tesla T4 has 7.5: on a CPU, .*`sparsebert.load`"
        ):
            load_torch_2to4(sparse)

    def test_a_gpu_that_is_not_there(self, sparse: Path, gpu: Callable[..., None]) -> None:
        gpu(9, 0)
        with pytest.raises(EngineError, match=r"but there is no 'cuda:3' \(torch finds 1\)"):
            load_torch_2to4(sparse, device="cuda:3")

    def test_a_packed_or_dense_model(
        self, sparse: Path, dense: Path, tmp_path: Path, gpu: Callable[..., None]
    ) -> None:
        gpu(9, 0)
        pack(sparse, tmp_path / "packed")
        with pytest.raises(
            CheckpointError, match="is packed: run `sparsebert export .* --to torch"
        ):
            load_torch_2to4(tmp_path / "packed")
        with pytest.raises(PatternError, match="no layer is pruned"):
            load_torch_2to4(dense)

    def test_a_missing_library(self, sparse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(MissingExtraError, match=r"Loading 2:4 tensors needs the \[export\]"):
            load_torch_2to4(sparse)

    def test_other_types(self, sparse: Path) -> None:
        with pytest.raises(InputError, match="2:4 tensors are float16 or bfloat16, not float64"):
            load_torch_2to4(sparse, dtype="float64")

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_on_a_gpu(self, sparse: Path, tmp_path: Path, dtype: str) -> None:
        from torch.sparse import SparseSemiStructuredTensor

        if torch.cuda.get_device_capability() < (8, 0):
            pytest.skip("a GPU older than Ampere")
        export(sparse, tmp_path / "out", to="torch-2to4")
        network = load_torch_2to4(tmp_path / "out", dtype=dtype)
        weights = [module.weight for module in network.modules() if hasattr(module, "weight")]
        assert sum(isinstance(each, SparseSemiStructuredTensor) for each in weights) == 12
        exact = load_torch_model(sparse)
        ids = torch.tensor([SEQUENCES[0], SEQUENCES[0][::-1]])  # 10 rows: torch fills them up
        with torch.inference_mode():
            found = network(ids.to("cuda")).logits.float().cpu()
            expected = exact(ids).logits
        torch.testing.assert_close(found, expected, atol=3e-2, rtol=0)
