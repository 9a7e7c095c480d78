"""Packing as int8: which tensor gets which layout, what comes back, and damaged files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from bert_folders import bert_config, bert_tensors, prune_by_hand, write_bert, write_folder
from sparsebert.checkpoint import Head, open_checkpoint, read_masks
from sparsebert.cli.app import app
from sparsebert.engine import _native
from sparsebert.errors import CheckpointError
from sparsebert.inference.memory import bytes_held, describe_storage
from sparsebert.packing import engine_weights, open_packed, pack, parts_of, to_dense, unpack
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
    return "pairs" if pattern == "1:2" else "panels"


def rounded(weight: np.ndarray) -> np.ndarray:
    values, scales = quantize_rows(weight)
    return values.astype(np.float32) * scales[:, None]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("pattern", ["1:2", "2:4", "1:4"])
def test_each_tensor_gets_its_layout(tmp_path: Path, head: str, pattern: str) -> None:
    sparse = sparse_bert(tmp_path, head, pattern)
    result = pack(sparse, tmp_path / "packed", dtype="int8")
    assert result["patterns"] == {pattern: 12}
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
        assert np.array_equal(to_dense(weight), rounded(source)), name


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
    assert (result["patterns"], result["dense"]) == ({"1:2": 1, "1:3": 1, "2:4": 1}, 11)
    weights = open_packed(tmp_path / "packed").weights
    assert describe_storage(weights) == "1:2+1:3+2:4 (3 of 12 layers) int8"
    assert np.array_equal(weights["classifier.weight"], tensors["classifier.weight"])
    unpack(tmp_path / "packed", tmp_path / "back")
    back = load_file(tmp_path / "back" / "model.safetensors")
    for name, tensor in tensors.items():
        layout = expected_layout(name.removeprefix("bert."), tensor.shape, None)
        assert np.array_equal(back[name], tensor if layout is None else rounded(tensor)), name


class TestUnpacking:
    @pytest.mark.parametrize("pattern", ["1:2", "2:4"])
    def test_rounded_floats_extras_and_masks_come_back(self, tmp_path: Path, pattern: str) -> None:
        sparse = sparse_bert(tmp_path, "masked-lm", pattern)
        pack(sparse, tmp_path / "packed", dtype="int8")
        result = unpack(tmp_path / "packed", tmp_path / "back")
        assert (result["exact"], result["dtype"], result["decompressed"]) == (False, "int8", 12)
        before = load_file(sparse / "model.safetensors")
        after = load_file(tmp_path / "back" / "model.safetensors")
        assert set(after) == set(before)
        for name, tensor in before.items():
            layout = expected_layout(name.removeprefix("bert."), tensor.shape, pattern)
            kept = layout is None or "seq_relationship" in name or "position_ids" in name
            assert after[name].dtype == tensor.dtype
            assert np.array_equal(after[name], tensor if kept else rounded(tensor)), name
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
            expected = rounded(source) if isinstance(weight, Quantized) else source
            assert np.array_equal(dense, expected), name


class TestWithoutCompression:
    @pytest.mark.parametrize("dtype", ["fp32", "fp16", "int8"])
    def test_zeros_are_stored_like_any_other_weight(self, tmp_path: Path, dtype: str) -> None:
        sparse = sparse_bert(tmp_path)
        small = pack(sparse, tmp_path / "packed", dtype=dtype)
        large = pack(sparse, tmp_path / "whole", dtype=dtype, compress=False)
        assert (large["compressed"], large["patterns"], large["dense"]) == (0, {}, 13)
        assert large["bytes"] > small["bytes"]
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
    with pytest.raises(CheckpointError, match=f"'{QUERY}.{part}', a name that packing needs"):
        pack(sparse, tmp_path / "packed", dtype="int8")


@pytest.mark.parametrize("pattern", ["1:2", "2:4"])
def test_the_engine_is_handed_each_layout_as_it_reads_it(tmp_path: Path, pattern: str) -> None:
    """The tuples of the native module's contract, with the file's own memory in them."""
    pack(sparse_bert(tmp_path, pattern=pattern), tmp_path / "packed", dtype="int8")
    weights = open_packed(tmp_path / "packed").weights
    query, pooler, words = (weights[name] for name in (QUERY, "pooler.dense.weight", WORDS))
    assert isinstance(query, Quantized)
    assert isinstance(pooler, Quantized)
    assert isinstance(words, Quantized)
    kind = ("pairs", 36) if pattern == "1:2" else (2, 4, 36)
    for weight, expected in (
        (query, (*kind, query.values, query.bits, query.scales)),
        (pooler, ("dense", 36, pooler.values, pooler.scales)),
        (words, ("table", words.values, words.scales)),
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
    assert result["bytes"] / result["source_bytes"] == pytest.approx(0.2025, abs=0.001)
    weights = open_packed(tmp_path / "packed").weights
    assert describe_storage(weights) == "1:2 int8"
    assert bytes_held(weights) == pytest.approx(result["bytes"], rel=0.01)


class TestHostileFiles:
    """An int8 file from anywhere: refused with a reason, never computed with."""

    @pytest.fixture(scope="class", params=["1:2", "2:4"])
    def packed(self, request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("hostile")
        sparse = sparse_bert(folder, pattern=request.param)
        pack(sparse, folder / "packed", dtype="int8")
        return folder / "packed"

    def altered(
        self,
        packed: Path,
        target: Path,
        document: Callable[[dict[str, Any]], Any] | None = None,
        tensors: Callable[[dict[str, np.ndarray]], Any] | None = None,
    ) -> Path:
        """A copy of the folder with its metadata or tensors changed."""
        target.mkdir()
        (target / "config.json").write_bytes((packed / "config.json").read_bytes())
        arrays = {name: array.copy() for name, array in load_file(packed / PACKED).items()}
        with safe_open(packed / PACKED, framework="np") as file:
            meta = json.loads(file.metadata()["sparsebert"])
        if tensors is not None:
            tensors(arrays)
        if document is not None:
            document(meta)
        save_file(arrays, target / PACKED, metadata={"sparsebert": json.dumps(meta)})
        return target

    def refused(self, folder: Path, complaint: str) -> None:
        with pytest.raises(CheckpointError, match=complaint):
            open_packed(folder)
        out = folder.parent / "out"
        with pytest.raises(CheckpointError):
            unpack(folder, out)
        assert not out.exists()

    def test_an_unaltered_copy_opens(self, packed: Path, tmp_path: Path) -> None:
        copy = self.altered(packed, tmp_path / "copy")
        assert len(open_packed(copy).weights) == len(open_packed(packed).weights)

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (lambda m: m.update(quantized=[]), "metadata is damaged"),
            (lambda m: m.update(quantized=None), "metadata is damaged"),
            (lambda m: m.update(dtype="fp32"), "metadata is damaged"),
            (lambda m: m["quantized"].update({QUERY: 7}), "metadata is damaged"),
            (lambda m: m["quantized"].update({QUERY: []}), "metadata is damaged"),
            (lambda m: m["quantized"].update({QUERY: {}}), "metadata is damaged"),
            (lambda m: m["compressed"].update({QUERY: m["quantized"][QUERY]}), "is damaged"),
            (lambda m: m["quantized"][QUERY].update(layout="rows"), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(layout=["pairs"]), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(layout=None), "two|damaged|lacks"),
            (lambda m: m["quantized"][QUERY].update(layout="dense"), "does not take"),
            (lambda m: m["quantized"][QUERY].update(layout="table"), "does not take"),
            (lambda m: m["quantized"][QUERY].update(layout="table", pattern=None), "is a layer"),
            (lambda m: m["quantized"][QUERY].update(pattern=None), "does not take None"),
            (lambda m: m["quantized"][QUERY].update(pattern="1:3"), "damaged"),
            (lambda m: m["quantized"][QUERY].update(pattern=12), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(shape=[36]), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(shape="ab"), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(shape=[36, 0]), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(shape=[36, 2**40]), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(shape=[36, 36.0]), "metadata is damaged"),
            (lambda m: m["quantized"][QUERY].update(shape=[36, 37]), "does not take"),
            (lambda m: m["quantized"][QUERY].update(shape=[36, 32]), "has shape"),
            (lambda m: m["quantized"][QUERY].update(shape=[37, 36]), "has shape"),
            (lambda m: m["quantized"].pop(QUERY), "lacks tensors"),
            (
                lambda m: m["quantized"][WORDS].update(layout="dense"),
                f"'{WORDS}' is compressed, but is no linear layer",
            ),
            (
                lambda m: m["quantized"].update(
                    {"pooler.dense.bias": {"shape": [3, 2], "layout": "dense", "pattern": None}}
                ),
                "both plain and compressed",
            ),
            (
                lambda m: m["quantized"].update(
                    {"new": {"shape": [3, 2], "layout": "dense", "pattern": None}}
                ),
                r"lacks 'new\.values'",
            ),
        ],
    )
    def test_metadata_that_lies(
        self, packed: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], complaint: str
    ) -> None:
        self.refused(self.altered(packed, tmp_path / "copy", document=change), complaint)

    @pytest.mark.parametrize(
        ("name", "part"),
        [
            (QUERY, "bits"),
            *(
                (name, part)
                for name in (QUERY, WORDS, "pooler.dense.weight")
                for part in ("values", "scales")
            ),
        ],
    )
    @pytest.mark.parametrize(
        "change",
        [
            lambda a: a[:-1],
            lambda a: a[None],
            lambda a: a.reshape(-1)[:0],
            lambda a: a.astype(np.float64),
            lambda a: a.astype(np.uint8),
            lambda a: np.zeros(a.shape, np.float16),
        ],
        ids=["shorter", "deeper", "empty", "double", "unsigned", "half"],
    )
    def test_parts_of_other_types_and_shapes(
        self, packed: Path, tmp_path: Path, name: str, part: str, change: Any
    ) -> None:
        stored = f"{name}.{part}"
        folder = self.altered(
            packed,
            tmp_path / "copy",
            tensors=lambda t: t.update({stored: np.ascontiguousarray(change(t[stored]))}),
        )
        self.refused(folder, f"tensor '{name}' is damaged: its {part} are ")

    @pytest.mark.parametrize("name", [QUERY, WORDS, "pooler.dense.weight"])
    @pytest.mark.parametrize("scale", [np.nan, np.inf, -0.5])
    def test_scales_that_are_none(
        self, packed: Path, tmp_path: Path, name: str, scale: float
    ) -> None:
        def change(tensors: dict[str, np.ndarray]) -> None:
            tensors[f"{name}.scales"][1] = scale

        folder = self.altered(packed, tmp_path / "copy", tensors=change)
        self.refused(folder, f"tensor '{name}' is damaged: its scales are not all finite")

    @pytest.mark.parametrize("name", [QUERY, "pooler.dense.weight"])
    def test_filling_that_is_not_zero(self, packed: Path, tmp_path: Path, name: str) -> None:
        def change(tensors: dict[str, np.ndarray]) -> None:
            values = tensors[f"{name}.values"]
            values[-1, ..., -1] = 1

        folder = self.altered(packed, tmp_path / "copy", tensors=change)
        self.refused(folder, f"tensor '{name}' is damaged: the filling")

    def test_bits_behind_the_last_column(self, packed: Path, tmp_path: Path) -> None:
        def change(tensors: dict[str, np.ndarray]) -> None:
            tensors[f"{QUERY}.bits"][-1, -1] |= np.uint64(1 << 63)

        folder = self.altered(packed, tmp_path / "copy", tensors=change)
        self.refused(folder, f"tensor '{QUERY}' is damaged: the stored bits")

    @pytest.mark.parametrize("part", ["values", "scales", "bits"])
    def test_missing_parts(self, packed: Path, tmp_path: Path, part: str) -> None:
        folder = self.altered(packed, tmp_path / "copy", tensors=lambda t: t.pop(f"{QUERY}.{part}"))
        self.refused(folder, f"lacks '{QUERY}.{part}'")

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_any_changed_byte_is_read_or_refused(
        self, packed: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        folder = tmp_path_factory.mktemp("flipped")
        (folder / "config.json").write_bytes((packed / "config.json").read_bytes())
        content = bytearray((packed / PACKED).read_bytes())
        header = 8 + int.from_bytes(content[:8], "little")
        end = header if data.draw(st.booleans()) else len(content)
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
        (folder / PACKED).write_bytes(content)
        try:
            weights = open_packed(folder).weights
        except CheckpointError:
            return
        for weight in weights.values():
            to_dense(weight)


def test_an_odd_number_of_inputs_is_dense(tmp_path: Path) -> None:
    """No pattern fits, tiles do: the last group has an even input more than odd ones."""
    dense = write_bert(tmp_path / "m", hidden_size=9, num_attention_heads=3, intermediate_size=13)
    assert pack(dense, tmp_path / "packed", dtype="int8")["patterns"] == {}
    checkpoint = open_checkpoint(dense)
    for name, weight in open_packed(tmp_path / "packed").weights.items():
        if isinstance(weight, Quantized):
            assert np.array_equal(to_dense(weight), rounded(checkpoint.weight(name))), name
