"""Exports to ONNX and OpenVINO: the model's own answers, every zero, refusals in plain words."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from family_configs import DISTINCT
from sentences import SENTENCES
from sparsebert.checkpoint import EncoderConfig, Head, open_checkpoint, read_masks
from sparsebert.cli.app import app
from sparsebert.errors import (
    CheckpointError,
    ExportError,
    InputError,
    MissingExtraError,
    OutputError,
    PatternError,
    UnsupportedArchitectureError,
)
from sparsebert.exporting import export, export_folder
from sparsebert.exporting.network import input_names
from sparsebert.exporting.onnx import gather_data, onnx_constants, run_onnx, write_onnx
from sparsebert.exporting.openvino import openvino_constants, run_openvino
from sparsebert.exporting.verification import count_kept_zeros
from sparsebert.packing import pack
from sparsebert.pruning import prune

TinyBert = Callable[..., Path]
Sparse = Callable[..., Path]

# Every family once, and every head; the heads of two families whose heads differ most from BERT's.
MODELS = [
    *(("bert", head.value) for head in Head),
    *((family, "encoder") for family in DISTINCT if family != "bert"),
    ("modernbert", "sequence-classification"),
    ("electra", "masked-lm"),
]


@pytest.fixture(scope="module")
def sparse(tiny_bert: TinyBert, tmp_path_factory: pytest.TempPathFactory) -> Sparse:
    """``sparse(head, **sizes)``: a folder of `tiny_bert`, pruned to 1:2."""
    made: dict[str, Path] = {}

    def make(head: str = "encoder", **sizes: Any) -> Path:
        key = repr((head, sorted(sizes.items())))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("sparse") / "model"
            prune(tiny_bert(head, **sizes), made[key])
        return made[key]

    return make


def zeros_of(folder: Path) -> int:
    """The zeros that pruning left, counted in the masks."""
    return sum(int((~mask).sum()) for mask in read_masks(open_checkpoint(folder)).values())


def difference(folder: Path, run: Callable[[dict[str, Any]], list[Any]]) -> float:
    """How far an export's answers for padded pairs are from transformers', each pair by itself.

    The tokenizer's own arrays go in by name, token types and padding included; an input that it
    does not make is zeros, as optimum has it.
    """
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    network = getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pairs = [(SENTENCES[3], SENTENCES[0]), (SENTENCES[0], SENTENCES[0]), (SENTENCES[5], "7")]
    encoded = tokenizer(pairs, padding=True, return_tensors="np")
    zeros = np.zeros_like(encoded["input_ids"])
    names = input_names(open_checkpoint(folder).config)
    answers = run({name: np.asarray(encoded.get(name, zeros), np.int64) for name in names})
    largest = 0.0
    for row, pair in enumerate(pairs):
        alone = tokenizer(*pair, return_tensors="pt")
        with torch.inference_mode():
            expected = network(**alone).to_tuple()
        for found, wanted in zip(answers, expected):  # a pooler's output comes last
            wanted = wanted[0].numpy()
            largest = max(largest, float(np.abs(found[row][: len(wanted)] - wanted).max()))
    return largest


@pytest.mark.parametrize(("family", "head"), MODELS)
def test_onnx_runtime_answers_as_transformers(
    sparse: Sparse, tmp_path: Path, family: str, head: str
) -> None:
    pytest.importorskip("onnxruntime")
    model = sparse(head, model_type=family)
    result = export(model, tmp_path / "out", to="onnx")
    assert (result.to, result.file) == ("onnx", "model.onnx")
    assert result.zeros == zeros_of(model) == result.weights // 2 > 0
    assert result.layers == len(read_masks(open_checkpoint(model)))
    assert 0 < result.largest_difference < 1e-5
    file = tmp_path / "out" / "model.onnx"
    assert result.bytes == file.stat().st_size
    assert difference(model, partial(run_onnx, file)) < 1e-5


@pytest.mark.parametrize(("family", "head"), [("bert", "question-answering"), ("mpnet", "encoder")])
def test_openvino_answers_as_transformers(
    sparse: Sparse, tmp_path: Path, family: str, head: str
) -> None:
    ov = pytest.importorskip("openvino")
    model = sparse(head, model_type=family)
    result = export(model, tmp_path / "out", to="openvino")
    assert result.zeros == zeros_of(model)
    file = tmp_path / "out" / "openvino_model.xml"
    assert difference(model, partial(run_openvino, file)) < 1e-5
    # As optimum's OVModelForX reads it: by name.
    graph = ov.Core().read_model(file)
    types = ["token_type_ids"] if family == "bert" else []
    assert [each.any_name for each in graph.inputs] == ["input_ids", "attention_mask", *types]
    names = ["start_logits", "end_logits"] if family == "bert" else ["last_hidden_state"]
    assert [each.any_name for each in graph.outputs] == names
    assert not list((tmp_path / "out").glob("*.onnx"))


def test_names_and_axes_are_those_that_optimum_looks_for(sparse: Sparse, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    export(sparse("sequence-classification"), tmp_path / "out", to="onnx")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    axes = ["batch_size", "sequence_length"]
    names = ("input_ids", "attention_mask", "token_type_ids")
    assert [(each.name, each.shape) for each in session.get_inputs()] == [(n, axes) for n in names]
    assert [(each.name, each.shape[1:]) for each in session.get_outputs()] == [("logits", [3])]


def test_what_goes_along(sparse: Sparse, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = tmp_path / "model"
    prune(sparse(), model)
    pooling = model / "1_Pooling"
    pooling.mkdir()
    (pooling / "config.json").write_text('{"pooling_mode_cls_token": true}')
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
    ]
    (model / "modules.json").write_text(json.dumps(modules))
    export(model, tmp_path / "out", to="onnx")
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        *("model.onnx", "config.json", "README.md", "tokenizer.json", "tokenizer_config.json"),
        *("modules.json", "1_Pooling"),
    }
    config = json.loads((out / "config.json").read_text())
    last = config["sparsity"]["lineage"][-1]
    assert (last["step"], last["from"], last["arguments"]) == ("export", "model", {"to": "onnx"})
    card = (out / "README.md").read_text()
    assert "from optimum.onnxruntime import ORTModelForFeatureExtraction" in card
    assert "masks.safetensors" not in card


def test_a_packed_model_is_unpacked_on_the_way(sparse: Sparse, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = sparse("sequence-classification")
    pack(model, tmp_path / "packed", dtype="int8")
    result = export(tmp_path / "packed", tmp_path / "out", to="onnx")
    # Rounding makes a zero of a kept weight now and then, and never a weight of a zero.
    assert zeros_of(model) <= result.zeros < 1.1 * zeros_of(model)
    steps = json.loads((tmp_path / "out" / "config.json").read_text())["sparsity"]["lineage"]
    assert [step["step"] for step in steps] == ["prune", "pack", "unpack", "export"]
    assert steps[-1]["from"] == "packed"


def test_a_dense_model_has_no_zeros_to_keep(tiny_bert: TinyBert, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model, out = tiny_bert("token-classification"), tmp_path / "out"
    done = CliRunner().invoke(app, ["export", str(model), str(out), "--to", "onnx"])
    assert done.exit_code == 0, done.output
    assert "the model is dense, so there were no zeros to keep; answers differ" in done.stdout


class TestZeros:
    WEIGHT = np.array([[0, 1.5], [2, 0], [-0.0, 3]], np.float32)

    @pytest.mark.parametrize("change", [np.asarray, np.transpose, np.float16, np.negative])
    def test_a_matrix_is_known_in_every_form(self, change: Callable[..., Any]) -> None:
        matrix = -self.WEIGHT if change is np.negative else self.WEIGHT  # -0.0 is a zero
        other = np.ones((3, 2), np.float32)
        assert count_kept_zeros({"w": matrix}, [other, change(self.WEIGHT)]) == {"w": 3}

    def test_one_constant_may_be_two_layers(self) -> None:
        twice = {"a": self.WEIGHT, "b": self.WEIGHT.copy()}
        assert count_kept_zeros(twice, [self.WEIGHT]) == {"a": 3, "b": 3}

    @pytest.mark.parametrize("place", [(0, 0), (0, 1)])
    def test_a_lost_zero_and_a_changed_weight_are_missed(self, place: tuple[int, int]) -> None:
        changed = self.WEIGHT.copy()
        changed[place] = 1
        assert count_kept_zeros({"w": self.WEIGHT}, [changed]) == {}

    def test_constants_of_other_kinds_are_passed_over(self) -> None:
        others = [np.arange(6).reshape(3, 2), np.float32(1), self.WEIGHT.reshape(6)]
        assert count_kept_zeros({"w": self.WEIGHT}, others) == {}

    def test_constants_come_from_nodes_too(self, tmp_path: Path) -> None:
        onnx = pytest.importorskip("onnx")
        from onnx import helper, numpy_helper

        tensor = numpy_helper.from_array(self.WEIGHT)
        node = helper.make_node("Constant", [], ["w"], value=tensor)
        first = numpy_helper.from_array(np.ones((1, 1), np.float32), "first")
        graph = helper.make_graph(
            [node], "g", [], [helper.make_tensor_value_info("w", 1, [3, 2])], [first]
        )
        onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
        shapes = [constant.shape for constant in onnx_constants(tmp_path / "model.onnx")]
        assert shapes == [(1, 1), (3, 2)]


class TestChecks:
    @pytest.fixture
    def wrong(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
        """``wrong(folder)``: from now on that folder is exported, whatever is asked for."""
        pytest.importorskip("onnxruntime")

        def install(folder: Path) -> None:
            def write(_source: Path, config: EncoderConfig, file: Path) -> None:
                write_onnx(folder, config, file)

            form = replace(export_folder._FORMATS["onnx"], write=write)
            monkeypatch.setitem(export_folder._FORMATS, "onnx", form)

        return install

    def test_a_graph_without_the_zeros_is_not_kept(
        self, sparse: Sparse, tiny_bert: TinyBert, tmp_path: Path, wrong: Callable[[Path], None]
    ) -> None:
        wrong(tiny_bert())
        with pytest.raises(ExportError, match="lost or changed 12 of 12 pruned layers"):
            export(sparse(), tmp_path / "out", to="onnx")
        assert list(tmp_path.iterdir()) == []

    def test_a_graph_that_answers_otherwise_is_not_kept(
        self, sparse: Sparse, tmp_path: Path, wrong: Callable[[Path], None]
    ) -> None:
        import torch
        import transformers

        network = transformers.AutoModel.from_pretrained(sparse())
        with torch.no_grad():  # a bias is no pruned matrix: only the answers show it
            network.encoder.layer[1].attention.output.dense.bias[3] += 0.02
        network.save_pretrained(tmp_path / "other")
        wrong(tmp_path / "other")
        with pytest.raises(ExportError, match="gives different outputs from transformers .by 0.0"):
            export(sparse(), tmp_path / "out", to="onnx")
        assert not (tmp_path / "out").exists()

    def test_a_broken_pattern_is_found_first(self, sparse: Sparse, tmp_path: Path) -> None:
        pytest.importorskip("onnxruntime")
        import transformers

        model = tmp_path / "model"
        prune(sparse(), model)
        network = transformers.AutoModel.from_pretrained(model)
        network.encoder.layer[0].output.dense.weight.data.fill_(1)
        network.save_pretrained(model)
        with pytest.raises(PatternError, match=r"'encoder.layer.0.output.dense.weight'"):
            export(model, tmp_path / "out", to="onnx")


def test_many_files_of_weights_become_one(tmp_path: Path) -> None:
    """What the exporter leaves of a model above 2 GB, in small."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import helper, numpy_helper

    random = np.random.default_rng(0)
    weights = [random.standard_normal((32, 32), np.float32) for _ in range(2)]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "a"], ["y"]), helper.make_node("Add", ["y", "b"], ["z"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [32, 32])],
        [helper.make_tensor_value_info("z", 1, [32, 32])],
        [numpy_helper.from_array(weight, name) for weight, name in zip(weights, "ab")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    scattered = tmp_path / "scattered"
    scattered.mkdir()
    onnx.save(
        model,
        scattered / "model.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=False,
        size_threshold=0,
    )
    assert len(list(scattered.iterdir())) == 3
    gather_data(scattered / "model.onnx", tmp_path / "model.onnx")
    assert {path.name for path in tmp_path.glob("model*")} == {"model.onnx", "model.onnx_data"}
    x = random.standard_normal((32, 32), np.float32)
    (found,) = run_onnx(tmp_path / "model.onnx", {"x": x})
    np.testing.assert_allclose(found, x @ weights[0] + weights[1], rtol=1e-4, atol=1e-5)
    assert count_kept_zeros(dict(zip("ab", weights)), onnx_constants(tmp_path / "model.onnx"))


class TestRefusals:
    def test_an_unknown_target(self, sparse: Sparse, tmp_path: Path) -> None:
        with pytest.raises(
            InputError, match="'tflite' is not a target .* onnx, openvino, torch-2to4"
        ):
            export(sparse(), tmp_path / "out", to="tflite")
        done = CliRunner().invoke(app, ["export", "m", str(tmp_path / "out"), "--to", "tflite"])
        assert done.exit_code == 2
        assert "choose from onnx, openvino, torch-2to4" in done.stderr

    @pytest.mark.parametrize(("to", "library"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
    def test_a_missing_library(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, to: str, library: str
    ) -> None:
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(
            MissingExtraError, match=rf"Exporting to {to} needs the \[export\] extra"
        ):
            export(tmp_path, tmp_path / "out", to=to)

    def test_an_output_that_is_there(self, sparse: Sparse, tmp_path: Path) -> None:
        pytest.importorskip("onnxruntime")
        with pytest.raises(OutputError, match="exists"):
            export(sparse(), tmp_path, to="onnx")

    def test_an_unknown_family(self, tmp_path: Path) -> None:
        pytest.importorskip("onnxruntime")
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text('{"model_type": "gpt2"}')
        (tmp_path / "model" / "model.safetensors").write_bytes(b"")
        with pytest.raises(UnsupportedArchitectureError, match="'gpt2'"):
            export(tmp_path / "model", tmp_path / "out", to="onnx")

    def test_weights_that_are_no_numbers(self, sparse: Sparse, tmp_path: Path) -> None:
        pytest.importorskip("onnxruntime")
        model = tmp_path / "model"
        prune(sparse(), model)
        tensors = load_file(model / "model.safetensors")
        name = next(name for name in tensors if name.endswith("LayerNorm.bias"))
        tensors[name][1] = np.nan
        save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=f"'{name}' .*NaN or infinite"):
            export(model, tmp_path / "out", to="onnx")

    def test_an_export_is_no_model_folder(self, sparse: Sparse, tmp_path: Path) -> None:
        pytest.importorskip("onnxruntime")
        out = tmp_path / "out"
        export(sparse(), out, to="onnx")
        with pytest.raises(CheckpointError, match="has no weights"):
            export(out, tmp_path / "again", to="onnx")
        assert export(sparse(), out, to="onnx", force=True).out == str(out)


def test_the_command_says_what_it_checked(sparse: Sparse, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = sparse()
    arguments = ["export", str(model), str(tmp_path / "out"), "--to", "onnx"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    expected = f"all {zeros_of(model):,} zeros of 12 pruned layers are in it; answers differ"
    assert expected in done.stdout
    done = CliRunner().invoke(app, [*arguments, "--force", "--json"])
    assert json.loads(done.stdout)["zeros"] == zeros_of(model)


def test_openvino_constants_are_all_read(sparse: Sparse, tmp_path: Path) -> None:
    """The zeros are counted in the file, not in memory: one flipped byte of it is seen."""
    pytest.importorskip("openvino")
    model = sparse()
    export(model, tmp_path / "out", to="openvino")
    checkpoint = open_checkpoint(model)
    pruned = {name: checkpoint.weight(name) for name in read_masks(checkpoint)}
    file = tmp_path / "out" / "openvino_model.xml"
    assert set(count_kept_zeros(pruned, openvino_constants(file))) == set(pruned)
    weights = file.with_suffix(".bin")
    data = bytearray(weights.read_bytes())
    lost = next(iter(pruned))
    start = data.find(np.ascontiguousarray(pruned[lost]).tobytes())
    assert start >= 0
    data[start + 3] ^= 0x40
    weights.write_bytes(data)
    assert set(count_kept_zeros(pruned, openvino_constants(file))) == set(pruned) - {lost}
