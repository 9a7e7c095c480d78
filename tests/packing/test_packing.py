"""The packed format: exact, smaller, mapped when loaded, and not to be fooled."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from bert_folders import bert_config, bert_tensors, prune_by_hand, write_bert, write_folder
from sparsebert.checkpoint import (
    MASKS_NAME,
    Head,
    TensorFiles,
    open_checkpoint,
    read_masks,
)
from sparsebert.compressed import Compressed, decompress
from sparsebert.errors import (
    CheckpointError,
    OutputError,
    PatternError,
)
from sparsebert.packing import engine_weights, is_packed, open_packed, pack, unpack
from sparsebert.patterns import ONE_OF_TWO, Pattern
from sparsebert.pruning import prune

HEADS = [head.value for head in Head]
QUERY = "encoder.layer.0.attention.self.query.weight"
OUTPUT = "encoder.layer.1.output.dense.weight"
PACKED = "packed.safetensors"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def same_tensors(first: Path, second: Path) -> bool:
    """Whether two folders hold the same tensors, byte for byte and type for type."""
    one, two = TensorFiles.of_folder(first), TensorFiles.of_folder(second)
    return set(one) == set(two) and all(
        one.spec(name) == two.spec(name) and one[name].tobytes() == two[name].tobytes()
        for name in one
    )


def sparse_bert(folder: Path, head: str = "encoder", pattern: str = "1:2", **sizes: Any) -> Path:
    """A pruned model under ``folder``, with extra tensors that no engine uses."""
    dense = write_bert(folder / "dense", head, **sizes)
    tensors = dict(load_file(dense / "model.safetensors"))
    tensors["bert.embeddings.position_ids"] = np.arange(16, dtype=np.int64)[None]
    tensors["cls.seq_relationship.weight"] = np.ones((2, 8), np.float32)
    save_file(tensors, dense / "model.safetensors", metadata={"format": "pt", "note": "mine"})
    parts = ["encoder", "pooler", "head"] if pattern == "1:2" and head != "encoder" else ["encoder"]
    prune(dense, folder / "sparse", pattern=pattern, parts=parts)
    return folder / "sparse"


class TestExact:
    @pytest.mark.parametrize("head", HEADS)
    def test_unpacking_gives_back_every_byte(self, tmp_path: Path, head: str) -> None:
        sparse = sparse_bert(tmp_path, head)
        result = pack(sparse, tmp_path / "packed")
        assert result.compressed == len(read_masks(open_checkpoint(sparse)))
        back = unpack(tmp_path / "packed", tmp_path / "back")
        assert back.exact is True
        assert same_tensors(sparse, tmp_path / "back")
        with safe_open(tmp_path / "back" / "model.safetensors", framework="np") as file:
            assert file.metadata() == {"format": "pt", "note": "mine"}

    @pytest.mark.parametrize(
        ("pattern", "sizes"),
        [
            ("1:2", {"hidden_size": 64, "intermediate_size": 130}),
            ("1:2 shared by 16 rows", {"hidden_size": 36, "intermediate_size": 130}),
            ("2:4", {}),
            ("4:8", {"hidden_size": 72, "intermediate_size": 136}),
            ("1:3", {"hidden_size": 66, "intermediate_size": 129}),
            ("3:4", {}),
        ],
    )
    def test_every_pattern(self, tmp_path: Path, pattern: str, sizes: dict[str, int]) -> None:
        sparse = sparse_bert(tmp_path, pattern=pattern, **sizes)
        assert pack(sparse, tmp_path / "packed").patterns == {pattern: 12}
        unpack(tmp_path / "packed", tmp_path / "back")
        assert same_tensors(sparse, tmp_path / "back")

    def test_a_dense_model(self, tmp_path: Path) -> None:
        dense = write_bert(tmp_path / "dense")
        result = pack(dense, tmp_path / "packed")
        assert (result.compressed, result.dense, result.patterns) == (0, 13, {})
        unpack(tmp_path / "packed", tmp_path / "back")
        assert same_tensors(dense, tmp_path / "back")
        assert not (tmp_path / "back" / MASKS_NAME).exists()

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_a_source_in_half_precision_keeps_its_type(self, tmp_path: Path, dtype: str) -> None:
        torch = pytest.importorskip("torch")
        from safetensors.torch import load_file as load_torch
        from safetensors.torch import save_file as save_torch

        dense = write_bert(tmp_path / "dense")
        tensors = load_torch(dense / "model.safetensors")
        kind = getattr(torch, dtype)
        halves = {name: tensor.to(kind) for name, tensor in tensors.items()}
        save_torch(halves, dense / "model.safetensors")
        prune(dense, tmp_path / "sparse")
        pack(tmp_path / "sparse", tmp_path / "packed")
        unpack(tmp_path / "packed", tmp_path / "back")
        assert same_tensors(tmp_path / "sparse", tmp_path / "back")
        # What the engine gets is something it can compute with, and the same numbers.
        weights = open_packed(tmp_path / "packed").weights
        checkpoint = open_checkpoint(tmp_path / "sparse")
        for name, weight in weights.items():
            dense_form = decompress(weight) if isinstance(weight, Compressed) else weight
            assert dense_form.dtype in ((np.float32, np.float16) if dense_form.ndim == 2
                                        else (np.float32,))  # fmt: skip
            assert np.array_equal(dense_form.astype(np.float32), checkpoint.weight(name))

    def test_masks_come_back(self, tmp_path: Path) -> None:
        """Also that of a kept weight which happens to be 0.0, which the zeros cannot tell."""
        sparse = sparse_bert(tmp_path)
        masks = read_masks(open_checkpoint(sparse))
        tensors = {k: v.copy() for k, v in load_file(sparse / "model.safetensors").items()}
        row, pair = map(int, np.argwhere(masks[QUERY][:, 1::2])[0])
        tensors[QUERY][row, 2 * pair + 1] = 0
        save_file(tensors, sparse / "model.safetensors")
        pack(sparse, tmp_path / "packed")
        assert not (tmp_path / "packed" / MASKS_NAME).exists()
        unpack(tmp_path / "packed", tmp_path / "back")
        back = read_masks(open_checkpoint(tmp_path / "back"))
        assert set(back) == set(masks)
        assert all(np.array_equal(back[name], mask) for name, mask in masks.items())

    def test_zeros_that_nothing_records_are_compressed(self, tmp_path: Path) -> None:
        """The reference model's case: any linear layer counts, the pooler and the head too."""
        config = bert_config("sequence-classification")
        tensors = bert_tensors(config, "sequence-classification")
        names = ["bert." + QUERY, "bert.pooler.dense.weight", "classifier.weight"]
        tensors[names[0]] = prune_by_hand(tensors[names[0]])
        tensors[names[1]] = prune_by_hand(tensors[names[1]], 2, 4)
        tensors[names[2]][:, 4:] = 0  # four of eight, but not two of each four
        source = write_folder(tmp_path / "m", config, tensors)
        result = pack(source, tmp_path / "packed")
        assert result.patterns == {"1:2": 1, "2:4": 1, "4:8": 1}
        unpack(tmp_path / "packed", tmp_path / "back")
        assert same_tensors(source, tmp_path / "back")

    def test_a_pruned_minus_zero_comes_back_as_zero(self, tmp_path: Path) -> None:
        """The one bit that packing does not keep, as its documentation says."""
        config = bert_config()
        tensors = bert_tensors(config)
        sparse = prune_by_hand(tensors[QUERY])
        tensors[QUERY] = np.where(sparse == 0, np.float32(-0.0), sparse)
        source = write_folder(tmp_path / "m", config, tensors)
        pack(source, tmp_path / "packed")
        unpack(tmp_path / "packed", tmp_path / "back")
        back = load_file(tmp_path / "back" / "model.safetensors")
        assert back[QUERY].tobytes() == sparse.tobytes()
        assert np.array_equal(back[QUERY], tensors[QUERY])

    def test_the_same_model_packs_to_the_same_bytes(self, tmp_path: Path) -> None:
        sparse = sparse_bert(tmp_path)
        pack(sparse, tmp_path / "one")
        pack(sparse, tmp_path / "two")
        assert contents(tmp_path / "one") == contents(tmp_path / "two")

    def test_transformers_loads_what_was_unpacked(self, tmp_path: Path, tiny_bert: Any) -> None:
        transformers = pytest.importorskip("transformers")
        prune(tiny_bert("sequence-classification"), tmp_path / "sparse")
        pack(tmp_path / "sparse", tmp_path / "packed", dtype="fp16")
        unpack(tmp_path / "packed", tmp_path / "back")
        auto = transformers.AutoModelForSequenceClassification
        model, report = auto.from_pretrained(tmp_path / "back", output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        assert str(model.dtype) == "torch.float32"

    def test_the_real_model(self, minilm: Path, tmp_path: Path) -> None:
        prune(minilm, tmp_path / "sparse")
        result = pack(tmp_path / "sparse", tmp_path / "packed")
        # 10.6 million weights of 42.5 MB become 21.2 MB of values and 0.66 MB of bits.
        assert result.source_bytes - result.bytes == pytest.approx(20.57e6, rel=0.01)
        unpack(tmp_path / "packed", tmp_path / "back")
        assert same_tensors(tmp_path / "sparse", tmp_path / "back")
        packed = open_packed(tmp_path / "packed")
        assert packed.pooling == open_checkpoint(minilm).pooling


class TestHalf:
    def test_matrices_are_rounded_and_vectors_are_not(self, tmp_path: Path) -> None:
        sparse = sparse_bert(tmp_path)
        pack(sparse, tmp_path / "packed", dtype="fp16")
        assert unpack(tmp_path / "packed", tmp_path / "back").exact is False
        before = load_file(sparse / "model.safetensors")
        after = load_file(tmp_path / "back" / "model.safetensors")
        used = open_checkpoint(sparse).used
        for name, array in before.items():
            expected = array
            if name in used and array.ndim == 2:
                expected = array.astype(np.float16).astype(np.float32)
            assert after[name].dtype == array.dtype
            assert np.array_equal(after[name], expected), name
        weights = open_packed(tmp_path / "packed").weights
        for name, weight in weights.items():
            values = weight.values if isinstance(weight, Compressed) else weight
            matrix = isinstance(weight, Compressed) or weight.ndim == 2
            assert values.dtype == (np.float16 if matrix else np.float32), name

    def test_the_mask_survives_values_that_round_to_zero(self, tmp_path: Path) -> None:
        config = bert_config()
        tensors = bert_tensors(config)
        tensors[QUERY] = prune_by_hand(tensors[QUERY]) * np.float32(1e-12)
        pack(write_folder(tmp_path / "m", config, tensors), tmp_path / "packed", dtype="fp16")
        unpack(tmp_path / "packed", tmp_path / "back")
        back = open_checkpoint(tmp_path / "back")
        assert not back.weight(QUERY).any()
        assert np.array_equal(read_masks(back)[QUERY], tensors[QUERY] != 0)

    @pytest.mark.parametrize("name", [QUERY, "embeddings.word_embeddings.weight"])
    def test_values_beyond_its_range_name_the_tensor(self, tmp_path: Path, name: str) -> None:
        config = bert_config()
        tensors = bert_tensors(config)
        tensors[name][1, 1] = -70000
        source = write_folder(tmp_path / "m", config, tensors)
        with pytest.raises(CheckpointError, match=f"'{name}' contains 70000, beyond float16"):
            pack(source, tmp_path / "packed", dtype="fp16")
        assert not (tmp_path / "packed").exists()
        with pytest.raises(CheckpointError, match="beyond float16"):
            engine_weights(open_checkpoint(source), dtype="fp16")

    def test_a_half_source_unpacks_as_float32_and_says_so(self, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch")
        from safetensors.torch import load_file as load_torch
        from safetensors.torch import save_file as save_torch

        dense = write_bert(tmp_path / "dense", dtype="bfloat16")
        tensors = load_torch(dense / "model.safetensors")
        save_torch({n: t.bfloat16() for n, t in tensors.items()}, dense / "model.safetensors")
        pack(dense, tmp_path / "packed", dtype="fp16")
        unpack(tmp_path / "packed", tmp_path / "back")
        assert json.loads((tmp_path / "back" / "config.json").read_text())["dtype"] == "float32"
        after = load_torch(tmp_path / "back" / "model.safetensors")
        assert {tensor.dtype for tensor in after.values()} == {torch.float32}

    def test_it_halves_the_file(self, tmp_path: Path) -> None:
        sparse = sparse_bert(tmp_path, hidden_size=64, intermediate_size=128)
        full = pack(sparse, tmp_path / "fp32").bytes
        half = pack(sparse, tmp_path / "fp16", dtype="fp16").bytes
        assert half < 0.65 * full


class TestOpening:
    def test_weights_are_views_of_the_file(self, tmp_path: Path) -> None:
        sparse = sparse_bert(tmp_path, "sequence-classification")
        pack(sparse, tmp_path / "packed")
        assert is_packed(tmp_path / "packed")
        assert not is_packed(sparse)
        packed = open_packed(tmp_path / "packed")
        assert packed.config.head is Head.SEQUENCE
        assert packed.dtype == "fp32"
        for weight in packed.weights.values():
            for array in (
                (weight.values, weight.bits) if isinstance(weight, Compressed) else (weight,)
            ):
                assert not array.flags.owndata
                assert not array.flags.writeable
                assert array.flags.aligned

    def test_a_folder_that_is_written_anew_leaves_open_weights_as_they_were(
        self, tmp_path: Path
    ) -> None:
        pack(sparse_bert(tmp_path), tmp_path / "packed")
        weights = open_packed(tmp_path / "packed").weights
        query, words = weights[QUERY], weights["embeddings.word_embeddings.weight"]
        assert isinstance(query, Compressed)
        assert isinstance(words, np.ndarray)
        before = query.values.copy(), words.copy()
        (tmp_path / "other").mkdir()
        pack(sparse_bert(tmp_path / "other", vocab_size=5), tmp_path / "packed", force=True)
        assert np.array_equal(query.values, before[0])
        assert np.array_equal(words, before[1])
        assert open_packed(tmp_path / "packed").config.vocab_size == 5

    @pytest.mark.parametrize("head", HEADS)
    @pytest.mark.parametrize("dtype", ["fp32", "fp16"])
    def test_a_folder_gives_the_engine_the_same_weights(
        self, tmp_path: Path, head: str, dtype: str
    ) -> None:
        sparse = sparse_bert(tmp_path, head)
        pack(sparse, tmp_path / "packed", dtype=dtype)
        from_file = open_packed(tmp_path / "packed").weights
        in_memory = engine_weights(open_checkpoint(sparse), dtype=dtype)
        assert list(from_file) == list(in_memory)
        assert "embeddings.position_ids" not in in_memory
        for name, weight in from_file.items():
            other = in_memory[name]
            if isinstance(weight, Compressed):
                assert isinstance(other, Compressed)
                assert (other.pattern, other.columns) == (weight.pattern, weight.columns)
                assert np.array_equal(other.bits, weight.bits)
                assert other.values.dtype == weight.values.dtype
                assert np.array_equal(other.values, weight.values)
            else:
                assert isinstance(other, np.ndarray)
                assert other.dtype == weight.dtype
                assert np.array_equal(other, weight)

    def test_sparse_layers_are_compressed_in_memory(self, tmp_path: Path) -> None:
        checkpoint = open_checkpoint(sparse_bert(tmp_path))
        weights = engine_weights(checkpoint)
        compressed = {name for name, w in weights.items() if isinstance(w, Compressed)}
        assert compressed == {layer.name for layer in checkpoint.linear_layers()}
        query = weights[QUERY]
        assert isinstance(query, Compressed)
        assert query.pattern == ONE_OF_TWO
        assert np.array_equal(decompress(query), checkpoint.weight(QUERY))

    def test_what_is_not_packed(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"no config\.json"):
            open_packed(tmp_path)
        dense = write_bert(tmp_path / "m")
        with pytest.raises(CheckpointError, match="is not a packed model"):
            open_packed(dense)
        with pytest.raises(CheckpointError, match="is not a packed model"):
            unpack(dense, tmp_path / "out")

    def test_a_packed_model_is_not_packed_again(self, tmp_path: Path) -> None:
        pack(sparse_bert(tmp_path), tmp_path / "packed")
        with pytest.raises(CheckpointError, match="is a packed model: run `sparsebert unpack"):
            pack(tmp_path / "packed", tmp_path / "again")


class TestRefusing:
    def test_a_broken_pattern_names_the_layer(self, tmp_path: Path) -> None:
        sparse = sparse_bert(tmp_path)
        tensors = {k: v.copy() for k, v in load_file(sparse / "model.safetensors").items()}
        tensors[OUTPUT][0, 0:2] = 1
        save_file(tensors, sparse / "model.safetensors")
        with pytest.raises(PatternError, match=f"'{OUTPUT}'.*prune it again"):
            pack(sparse, tmp_path / "packed")
        (sparse / MASKS_NAME).unlink()
        with pytest.raises(PatternError, match=f"'{OUTPUT}' is recorded as 1:2, but 1 groups"):
            pack(sparse, tmp_path / "packed")
        with pytest.raises(PatternError):
            engine_weights(open_checkpoint(sparse))

    @pytest.mark.parametrize("name", [QUERY, "embeddings.LayerNorm.bias", "pooler.dense.weight"])
    @pytest.mark.parametrize("dtype", ["fp32", "fp16"])
    def test_weights_that_are_not_finite(self, tmp_path: Path, name: str, dtype: str) -> None:
        config = bert_config()
        tensors = bert_tensors(config)
        tensors[name].reshape(-1)[1] = np.nan
        source = write_folder(tmp_path / "m", config, tensors)
        with pytest.raises(CheckpointError, match=f"'{name}' holds 1 values that are NaN"):
            pack(source, tmp_path / "packed", dtype=dtype)
        assert [path.name for path in tmp_path.iterdir()] == ["m"]
        with pytest.raises(CheckpointError, match="NaN"):
            engine_weights(open_checkpoint(source))

    def test_types_that_are_none(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="packed as 'fp8': choose from fp32, fp16"):
            pack(write_bert(tmp_path / "m"), tmp_path / "packed", dtype="fp8")

    def test_a_tensor_in_the_way(self, tmp_path: Path) -> None:
        sparse = sparse_bert(tmp_path)
        tensors = dict(load_file(sparse / "model.safetensors"))
        tensors[f"{QUERY}.bits"] = np.zeros(3, np.float32)
        save_file(tensors, sparse / "model.safetensors")
        with pytest.raises(CheckpointError, match="a name that packing uses"):
            pack(sparse, tmp_path / "packed")

    @pytest.mark.parametrize("step", ["pack", "unpack"])
    def test_existing_and_impossible_outputs(self, tmp_path: Path, step: str) -> None:
        source = sparse_bert(tmp_path)
        if step == "unpack":
            pack(source, tmp_path / "packed")
            source = tmp_path / "packed"
        run: Callable[..., Any] = pack if step == "pack" else unpack
        out = write_bert(tmp_path / "out")
        before = contents(out)
        with pytest.raises(OutputError, match="exists"):
            run(source, out)
        assert contents(out) == before
        run(source, out, force=True)
        with pytest.raises(OutputError, match="is the model itself"):
            run(source, source, force=True)

    @pytest.mark.parametrize("step", ["pack", "unpack"])
    @pytest.mark.parametrize("failure", ["full", "interrupt"])
    def test_a_failure_leaves_the_old_folder_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, failure: str
    ) -> None:
        source = sparse_bert(tmp_path)
        pack(source, tmp_path / "packed")
        out = write_bert(tmp_path / "out")
        before = contents(out)
        everything = {path.name for path in tmp_path.iterdir()}
        run: Callable[..., Any] = pack if step == "pack" else unpack
        source = source if step == "pack" else tmp_path / "packed"

        def stop(label: str, done: int, _total: int) -> None:
            if label in ("packing", "unpacking") and done == 7 and failure == "interrupt":
                raise KeyboardInterrupt

        if failure == "full":
            import os

            def full(_: int) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OutputError if failure == "full" else KeyboardInterrupt):
            run(source, out, force=True, progress=stop)
        assert contents(out) == before
        assert {path.name for path in tmp_path.iterdir()} == everything


def test_compressed_bits_of_other_patterns_must_be_whole(tmp_path: Path) -> None:
    pack(sparse_bert(tmp_path, pattern="2:4"), tmp_path / "packed")
    assert isinstance(open_packed(tmp_path / "packed").weights[QUERY], Compressed)
    tensors = dict(load_file(tmp_path / "packed" / PACKED))
    with safe_open(tmp_path / "packed" / PACKED, framework="np") as file:
        metadata = file.metadata()
    tensors[f"{QUERY}.bits"] = tensors[f"{QUERY}.bits"] ^ np.uint64(1)
    save_file(tensors, tmp_path / "packed" / PACKED, metadata=metadata)
    with pytest.raises(CheckpointError, match="do not form a complete 2:4 mask"):
        open_packed(tmp_path / "packed", as_it_is=True)


def test_the_folder_says_how_it_was_made(tmp_path: Path) -> None:
    sparse = sparse_bert(tmp_path)
    pack(sparse, tmp_path / "packed", dtype="fp16")
    unpack(tmp_path / "packed", tmp_path / "back")
    record = json.loads((tmp_path / "back" / "config.json").read_text())["sparsity"]
    assert [(step["step"], step["from"]) for step in record["lineage"]] == [
        ("prune", "dense"),
        ("pack", "sparse"),
        ("unpack", "packed"),
    ]
    assert Pattern.parse(record["pattern"]) == ONE_OF_TWO
    assert ", packed" in (tmp_path / "packed" / "README.md").read_text()
    assert ", packed" not in (tmp_path / "back" / "README.md").read_text()
    assert (tmp_path / "packed" / "vocab.txt").is_file()


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    sparse = sparse_bert(tmp_path)
    pack(sparse, tmp_path / "packed", progress=lambda *step: told.append(step))
    assert ("reading zeros", 13, 13) in told
    assert told[-1][0] == "packing"
    assert told[-1][1] == told[-1][2]
    told.clear()
    unpack(tmp_path / "packed", tmp_path / "back", progress=lambda *step: told.append(step))
    assert told[-1][0] == "unpacking"
    assert told[-1][1] == told[-1][2]
