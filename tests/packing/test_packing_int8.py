"""Packing as int8: which tensor gets which layout, what comes back, and damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from bert_folders import bert_config, bert_tensors, prune_by_hand, write_bert, write_folder
from sparsebert.checkpoint import Head, open_checkpoint, read_masks
from sparsebert.cli.app import app
from sparsebert.engine import _native
from sparsebert.errors import CheckpointError
from sparsebert.packing import engine_weights, open_packed, pack, parts_of, to_dense, unpack
from sparsebert.packing.weights import bytes_held, describe_storage
from sparsebert.pruning import prune
from sparsebert.quantized import Quantized, quantize_rows

HEADS = [head.value for head in Head]
QUERY = "encoder.layer.0.attention.self.query.weight"
WORDS = "embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"
PACKED = "packed.safetensors"
LAST = ("classifier.weight", "qa_outputs.weight")
# Neither size is a multiple of 16 rows, 8 inputs or 64 columns.
ODD = {"hidden_size": 36, "intermediate_size": 52, "num_attention_heads": 3}


def sparse_bert(folder: Path, head: str = "encoder", pattern: str = "1:2") -> Path:
    """A pruned model under ``folder`` with extra tensors; masked LM has its own decoder."""
    config = bert_config(head, **ODD)
    tensors = bert_tensors(config, head)
    tensors["cls.seq_relationship.weight"] = np.full((2, 36), 0.3, np.float32)
    tensors["bert.embeddings.position_ids"] = np.arange(16, dtype=np.int64)[None]
    if head == "masked-lm":
        tensors[DECODER] = np.random.default_rng(7).standard_normal((11, 36)).astype(np.float32)
    write_folder(folder / "dense", config, tensors)
    prune(folder / "dense", folder / "sparse", pattern=pattern)
    return folder / "sparse"


def expected_layout(name: str, shape: tuple[int, ...], pattern: str | None) -> str | None:
    """None for tensors that stay float32."""
    if len(shape) != 2 or name in LAST:
        return None
    if "embeddings" in name or name == DECODER:
        return "table"
    if pattern is None or not name.startswith("encoder."):
        return "dense"
    return {"1:2": "pairs", "1:2 shared by 16 rows": "shared-pairs"}.get(pattern, "panels")


def rounded(weight: np.ndarray, layout: str | None = "dense") -> np.ndarray:
    values, scales = quantize_rows(weight, small_pairs=layout != "table")
    return values.astype(np.float32) * scales[:, None]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("pattern", ["1:2", "1:2 shared by 16 rows", "2:4", "1:4"])
def test_each_tensor_gets_its_layout(tmp_path: Path, head: str, pattern: str) -> None:
    sparse = sparse_bert(tmp_path, head, pattern)
    result = pack(sparse, tmp_path / "packed", dtype="int8")
    assert result.patterns == {pattern: 12}
    packed = open_packed(tmp_path / "packed")
    checkpoint = open_checkpoint(sparse)
    assert packed.dtype == "int8"
    assert list(packed.weights) == list(checkpoint.used)
    for name, weight in packed.weights.items():
        source = checkpoint.weight(name)
        layout = expected_layout(name, source.shape, pattern)
        if layout is None:
            assert isinstance(weight, np.ndarray), name
            assert weight.dtype == np.float32
            assert np.array_equal(weight, source)
            continue
        assert isinstance(weight, Quantized), name
        assert weight.layout == layout, name
        assert np.array_equal(to_dense(weight), rounded(source, layout)), name


@pytest.mark.parametrize("head", HEADS)
def test_a_folder_gives_the_engine_the_same_weights(tmp_path: Path, head: str) -> None:
    sparse = sparse_bert(tmp_path, head)
    pack(sparse, tmp_path / "packed", dtype="int8")
    from_file = open_packed(tmp_path / "packed").weights
    in_memory = engine_weights(open_checkpoint(sparse), dtype="int8")
    assert list(from_file) == list(in_memory)
    for name, weight in from_file.items():
        assert type(weight) is type(in_memory[name])
        other = parts_of(in_memory[name])
        for part, array in parts_of(weight).items():
            assert array.dtype == other[part].dtype
            assert np.array_equal(array, other[part]), (name, part)


def test_layers_that_are_dense_among_pruned_ones(tmp_path: Path) -> None:
    config = bert_config("sequence-classification", **ODD)
    tensors = bert_tensors(config, "sequence-classification")
    mixed = {"query": (1, 2), "key": (2, 4), "value": (1, 3)}
    for kind, pattern in mixed.items():
        name = f"bert.encoder.layer.0.attention.self.{kind}.weight"
        tensors[name] = prune_by_hand(tensors[name], *pattern)
    tensors["classifier.weight"] = prune_by_hand(tensors["classifier.weight"])
    source = write_folder(tmp_path / "m", config, tensors)
    result = pack(source, tmp_path / "packed", dtype="int8")
    # The classifier stays float32 with its zeros, whatever they fit.
    assert (result.patterns, result.dense) == ({"1:2": 1, "1:3": 1, "2:4": 1}, 11)
    weights = open_packed(tmp_path / "packed").weights
    assert describe_storage(weights) == "1:2+1:3+2:4 (3 of 12 layers) int8"
    assert np.array_equal(weights["classifier.weight"], tensors["classifier.weight"])
    unpack(tmp_path / "packed", tmp_path / "back")
    back = load_file(tmp_path / "back" / "model.safetensors")
    for name, tensor in tensors.items():
        layout = expected_layout(name.removeprefix("bert."), tensor.shape, None)
        expected = tensor if layout is None else rounded(tensor, layout)
        assert np.array_equal(back[name], expected), name


class TestUnpacking:
    @pytest.mark.parametrize("pattern", ["1:2", "1:2 shared by 16 rows", "2:4"])
    def test_rounded_floats_extras_and_masks_come_back(self, tmp_path: Path, pattern: str) -> None:
        sparse = sparse_bert(tmp_path, "masked-lm", pattern)
        pack(sparse, tmp_path / "packed", dtype="int8")
        result = unpack(tmp_path / "packed", tmp_path / "back")
        assert (result.exact, result.dtype, result.decompressed) == (False, "int8", 12)
        before = load_file(sparse / "model.safetensors")
        after = load_file(tmp_path / "back" / "model.safetensors")
        assert set(after) == set(before)
        for name, tensor in before.items():
            layout = expected_layout(name.removeprefix("bert."), tensor.shape, pattern)
            kept = layout is None or "seq_relationship" in name or "position_ids" in name
            assert after[name].dtype == tensor.dtype
            assert np.array_equal(after[name], tensor if kept else rounded(tensor, layout)), name
        masks = read_masks(open_checkpoint(sparse))
        back = read_masks(open_checkpoint(tmp_path / "back"))
        assert set(back) == set(masks)
        assert all(np.array_equal(back[name], mask) for name, mask in masks.items())

    @pytest.mark.parametrize("pattern", [(1, 2), (2, 4)])
    def test_the_mask_survives_kept_weights_that_round_to_zero(
        self, tmp_path: Path, pattern: tuple[int, int]
    ) -> None:
        config = bert_config(**ODD)
        tensors = bert_tensors(config)
        tensors[QUERY] = prune_by_hand(tensors[QUERY], *pattern)
        tensors[QUERY][:, 4:] *= np.float32(1e-4)
        pack(write_folder(tmp_path / "m", config, tensors), tmp_path / "packed", dtype="int8")
        unpack(tmp_path / "packed", tmp_path / "back")
        back = open_checkpoint(tmp_path / "back")
        assert not back.weight(QUERY)[:, 4:].any()
        assert np.array_equal(read_masks(back)[QUERY], tensors[QUERY] != 0)

    def test_the_folder_and_its_card_say_that_values_were_rounded(self, tmp_path: Path) -> None:
        sparse = sparse_bert(tmp_path)
        pack(sparse, tmp_path / "packed", dtype="int8")
        unpack(tmp_path / "packed", tmp_path / "back")
        config = json.loads((tmp_path / "back" / "config.json").read_text())
        assert config["sparsity"]["lineage"][-1]["arguments"] == {"dtype": "int8", "exact": False}
        assert "(dtype=int8, exact=False)" in (tmp_path / "back" / "README.md").read_text()

    def test_packing_again_changes_nothing(self, tmp_path: Path) -> None:
        """A row's largest value stands for itself, so its scale is found again, to a rounding."""
        pack(sparse_bert(tmp_path), tmp_path / "one", dtype="int8")
        unpack(tmp_path / "one", tmp_path / "back")
        pack(tmp_path / "back", tmp_path / "two", dtype="int8")
        first, second = (load_file(tmp_path / name / PACKED) for name in ("one", "two"))
        assert set(first) == set(second)
        for name, array in first.items():
            if name.endswith(".scales"):
                np.testing.assert_allclose(second[name], array, rtol=1e-6, err_msg=name)
            else:
                assert np.array_equal(second[name], array), name

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_a_source_in_half_precision(self, tmp_path: Path, dtype: str) -> None:
        torch = pytest.importorskip("torch")
        from safetensors.torch import load_file as load_torch
        from safetensors.torch import save_file as save_torch

        sparse = sparse_bert(tmp_path)
        tensors = load_torch(sparse / "model.safetensors")
        half = {
            name: tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
        }
        save_torch(half, sparse / "model.safetensors")
        pack(sparse, tmp_path / "packed", dtype="int8")
        checkpoint = open_checkpoint(sparse)
        for name, weight in open_packed(tmp_path / "packed").weights.items():
            source = checkpoint.weight(name)
            dense = to_dense(weight)
            assert dense.dtype == np.float32
            is_int8 = isinstance(weight, Quantized)
            expected = rounded(source, weight.layout) if is_int8 else source
            assert np.array_equal(dense, expected), name


class TestWithoutCompression:
    @pytest.mark.parametrize("dtype", ["fp32", "fp16", "int8"])
    def test_zeros_are_stored_like_any_other_weight(self, tmp_path: Path, dtype: str) -> None:
        sparse = sparse_bert(tmp_path)
        small = pack(sparse, tmp_path / "packed", dtype=dtype)
        large = pack(sparse, tmp_path / "whole", dtype=dtype, compress=False)
        assert (large.compressed, large.patterns, large.dense) == (0, {}, 13)
        assert large.bytes > small.bytes
        weights, whole = (open_packed(tmp_path / name).weights for name in ("packed", "whole"))
        assert describe_storage(whole).startswith("dense ")
        assert bytes_held(whole) > bytes_held(weights)
        for name, weight in whole.items():
            assert np.array_equal(to_dense(weight), to_dense(weights[name])), name

    def test_the_lineage_says_so_and_the_zeros_tell_the_masks(self, tmp_path: Path) -> None:
        sparse = sparse_bert(tmp_path)
        pack(sparse, tmp_path / "whole", compress=False)
        config = json.loads((tmp_path / "whole" / "config.json").read_text())
        assert config["sparsity"]["lineage"][-1]["arguments"] == {
            "dtype": "fp32",
            "compress": False,
        }
        unpack(tmp_path / "whole", tmp_path / "back")
        masks = read_masks(open_checkpoint(sparse))
        back = read_masks(open_checkpoint(tmp_path / "back"))
        assert all(np.array_equal(back[name], mask) for name, mask in masks.items())

    def test_weights_that_are_not_finite_are_still_found(self, tmp_path: Path) -> None:
        config = bert_config()
        tensors = bert_tensors(config)
        tensors[QUERY][1, 1] = np.inf
        source = write_folder(tmp_path / "m", config, tensors)
        for dtype in ("fp32", "int8"):
            with pytest.raises(CheckpointError, match=f"'{QUERY}' holds 1 values that are NaN"):
                pack(source, tmp_path / "packed", dtype=dtype, compress=False)


@pytest.mark.parametrize("name", [QUERY, WORDS, "pooler.dense.weight", "pooler.dense.bias"])
def test_weights_that_are_not_finite(tmp_path: Path, name: str) -> None:
    config = bert_config()
    tensors = bert_tensors(config)
    tensors[name].reshape(-1)[1] = np.nan
    source = write_folder(tmp_path / "m", config, tensors)
    with pytest.raises(CheckpointError, match=f"'{name}' holds 1 values that are NaN"):
        pack(source, tmp_path / "packed", dtype="int8")
    with pytest.raises(CheckpointError, match="NaN"):
        engine_weights(open_checkpoint(source), dtype="int8")


@pytest.mark.parametrize("part", ["values", "bits", "scales"])
def test_a_tensor_in_the_way(tmp_path: Path, part: str) -> None:
    sparse = sparse_bert(tmp_path)
    tensors = dict(load_file(sparse / "model.safetensors"))
    tensors[f"{QUERY}.{part}"] = np.zeros(3, np.float32)
    save_file(tensors, sparse / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"'{QUERY}.{part}', a name that packing uses"):
        pack(sparse, tmp_path / "packed", dtype="int8")


@pytest.mark.parametrize("pattern", ["1:2", "1:2 shared by 16 rows", "2:4"])
def test_the_engine_is_handed_each_layout_as_it_reads_it(tmp_path: Path, pattern: str) -> None:
    """The tuples of the native module's contract, with the file's own memory in them."""
    pack(sparse_bert(tmp_path, pattern=pattern), tmp_path / "packed", dtype="int8")
    weights = open_packed(tmp_path / "packed").weights
    query, pooler, words = (weights[name] for name in (QUERY, "pooler.dense.weight", WORDS))
    assert isinstance(query, Quantized)
    assert isinstance(pooler, Quantized)
    assert isinstance(words, Quantized)
    kinds = {"1:2": ("pairs", 36), "2:4": ("panels", 36, 2, 4)}
    kind = kinds.get(pattern, ("shared-pairs", 36, 16))
    for weight, expected in (
        (query, (*kind, query.values, query.bits, query.scales)),
        (pooler, ("dense", 36, pooler.values, pooler.scales)),
        (words, ("table", 36, words.values, words.scales)),
    ):
        found = _native(weight)
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            if isinstance(other, np.ndarray):
                assert np.shares_memory(one, other)
                assert (one.dtype, one.shape) == (other.dtype, other.shape)
            else:
                assert one == other


def test_the_command(tmp_path: Path) -> None:
    def run(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    sparse = sparse_bert(tmp_path)
    told = run("pack", sparse, tmp_path / "packed", "--dtype", "int8")
    assert "as int8; 12 1:2 layers compressed, 1 dense" in told
    told = run("pack", sparse, tmp_path / "whole", "--dtype", "int8", "--no-compress")
    assert "no layers compressed, 13 dense" in told
    assert "prune" not in told
    told = run("unpack", tmp_path / "packed", tmp_path / "back")
    assert "values rounded to int8" in told


def test_the_same_model_packs_to_the_same_bytes(tmp_path: Path) -> None:
    sparse = sparse_bert(tmp_path)
    for name in ("one", "two"):
        pack(sparse, tmp_path / name, dtype="int8")
    assert (tmp_path / "one" / PACKED).read_bytes() == (tmp_path / "two" / PACKED).read_bytes()


def test_weights_are_views_of_the_file(tmp_path: Path) -> None:
    pack(sparse_bert(tmp_path), tmp_path / "packed", dtype="int8")
    for weight in open_packed(tmp_path / "packed").weights.values():
        for array in parts_of(weight).values():
            assert not array.flags.owndata
            assert not array.flags.writeable
            assert array.flags.aligned


def test_the_real_model(minilm: Path, tmp_path: Path) -> None:
    prune(minilm, tmp_path / "sparse")
    result = pack(tmp_path / "sparse", tmp_path / "packed", dtype="int8")
    assert result.bytes / result.source_bytes == pytest.approx(0.2025, abs=0.001)
    weights = open_packed(tmp_path / "packed").weights
    assert describe_storage(weights) == "1:2 int8"
    assert bytes_held(weights) == pytest.approx(result.bytes, rel=0.01)


def test_an_odd_number_of_inputs_is_dense(tmp_path: Path) -> None:
    """No pattern fits, tiles do: the last group has an even input more than odd ones."""
    dense = write_bert(tmp_path / "m", hidden_size=9, num_attention_heads=3, intermediate_size=13)
    assert pack(dense, tmp_path / "packed", dtype="int8").patterns == {}
    checkpoint = open_checkpoint(dense)
    for name, weight in open_packed(tmp_path / "packed").weights.items():
        if isinstance(weight, Quantized):
            expected = rounded(checkpoint.weight(name), weight.layout)
            assert np.array_equal(to_dense(weight), expected), name
