"""1:2 patterns that blocks of rows share: masks against brute force, folders, records, training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from bert_folders import bert_config, bert_tensors, write_folder
from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.compressed import (
    Compressed,
    check_compressed,
    compress,
    compressed_mask,
    decompress,
)
from sparsebert.diagnosis import diagnose
from sparsebert.errors import CheckpointError, PatternError, TrainingError
from sparsebert.packing import open_packed, pack, unpack
from sparsebert.packing.weights import describe_storage
from sparsebert.patterns import (
    ONE_OF_TWO,
    Pattern,
    count_broken_groups,
    count_kept,
    is_whole,
    mask_from_scores,
    mask_from_zeros,
)
from sparsebert.pruning import inspect, prune
from sparsebert.pruning.gradual import forced_mask
from sparsebert.training.options import FinetuneOptions

BY_16 = Pattern(1, 2, 16)
SHAPES = [(1, 2), (16, 6), (17, 4), (40, 10), (48, 8), (5, 8)]  # rows that 16 does not divide too
INTERMEDIATE = "encoder.layer.0.intermediate.dense.weight"  # 40 x 16: blocks of 16, 16 and 8 rows


def brute_force(scores: Any, shared: int) -> Any:
    """Block by block and pair by pair in Python."""
    mask = np.zeros(scores.shape, bool)
    for top in range(0, len(scores), shared):
        for left in range(0, scores.shape[1], 2):
            sums = scores[top : top + shared, left : left + 2].sum(0)
            mask[top : top + shared, left + int(sums[1] > sums[0])] = True
    return mask


def folder(path: Path) -> Path:
    config = bert_config(hidden_size=16, intermediate_size=40)
    return write_folder(path, config, bert_tensors(config))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_block_keeps_what_its_rows_need_together(shape: tuple[int, int]) -> None:
    scores = np.random.default_rng(0).integers(9, size=shape).astype(np.float32)  # ties as well
    mask = mask_from_scores(scores, BY_16)
    assert np.array_equal(mask, brute_force(scores, 16))
    assert is_whole(mask, BY_16)
    assert is_whole(mask, ONE_OF_TWO)
    assert np.all(count_kept(mask, BY_16) == 1)


def test_a_block_is_broken_where_two_rows_differ() -> None:
    mask = mask_from_scores(np.random.default_rng(1).random((40, 8)), BY_16)
    weight = np.where(mask, np.float32(3), np.float32(0))
    weight[5] = 0  # a row of zeros disagrees with nobody
    assert count_broken_groups(weight, BY_16) == 0
    assert np.array_equal(mask_from_zeros(weight, BY_16), mask)
    mask[39, :2] = ~mask[39, :2]
    weight[39, :2] = np.where(mask[39, :2], 3, 0)
    assert is_whole(mask, ONE_OF_TWO)
    assert not is_whole(mask, BY_16)
    assert count_broken_groups(weight, BY_16) == 1
    with pytest.raises(PatternError, match="1 groups have more non-zeros"):
        mask_from_zeros(weight, BY_16)


@pytest.mark.parametrize(
    ("n", "m", "rows", "why"),
    [
        (1, 2, 24, "shared by 24 rows: choose a multiple of 16"),
        (1, 2, 0, "shared by 0 rows"),
        (1, 2, -16, "shared by -16 rows"),
        (1, 2, 1 << 20, "up to 4096"),
        (2, 4, 16, "2:4 cannot be shared by rows, only 1:2 can"),
    ],
)
def test_patterns_that_cannot_be_shared_are_refused(n: int, m: int, rows: int, why: str) -> None:
    with pytest.raises(PatternError, match=why):
        Pattern(n, m, rows)


def test_text_and_pattern_are_the_same() -> None:
    assert str(BY_16) == "1:2 shared by 16 rows"
    assert Pattern.parse(str(BY_16)) == Pattern.parse("1:2", 16) == BY_16
    with pytest.raises(PatternError, match="shared by 32 rows as well"):
        Pattern.parse(str(BY_16), 32)


def test_a_folder_is_pruned_block_by_block_and_says_so(tmp_path: Path) -> None:
    source = folder(tmp_path / "dense")
    result = prune(source, tmp_path / "sparse", shared_rows=16)
    assert (result.pattern, result.shared_rows) == ("1:2", 16)
    before = load_file(source / "model.safetensors")[INTERMEDIATE]
    after = load_file(tmp_path / "sparse" / "model.safetensors")[INTERMEDIATE]
    assert np.array_equal(after, np.where(brute_force(np.abs(before), 16), before, 0))
    record = json.loads((tmp_path / "sparse" / "config.json").read_text())["sparsity"]
    assert (record["pattern"], record["shared_rows"]) == ("1:2", 16)
    assert record["lineage"][-1]["arguments"]["shared_rows"] == 16
    card = (tmp_path / "sparse" / "README.md").read_text()
    assert "Every 16 adjacent outputs keep the same inputs." in card

    checkpoint = open_checkpoint(tmp_path / "sparse")
    assert checkpoint.config.recorded_pattern == BY_16
    assert all(is_whole(mask, BY_16) for mask in read_masks(checkpoint).values())
    (tmp_path / "sparse" / "masks.safetensors").unlink()
    assert all(is_whole(mask, BY_16) for mask in read_masks(checkpoint).values())
    found = inspect(tmp_path / "sparse")
    assert found.whole
    assert found.pattern == "1:2 shared by 16 rows"
    assert "holds in all its 12 layers" in found.summary()

    again = prune(tmp_path / "sparse", tmp_path / "again", shared_rows=16)
    assert len(again.already_sparse) == 12
    plain = prune(tmp_path / "sparse", tmp_path / "plain")  # it is a 1:2 matrix as well
    assert len(plain.already_sparse) == 12
    record = json.loads((tmp_path / "plain" / "config.json").read_text())["sparsity"]
    assert "shared_rows" not in record


def test_a_row_that_leaves_its_block_is_found(tmp_path: Path) -> None:
    prune(folder(tmp_path / "dense"), tmp_path / "sparse", shared_rows=16)
    path = tmp_path / "sparse" / "model.safetensors"
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    row = tensors[INTERMEDIATE][33]
    row[:2] = row[1::-1].copy()  # still 1:2, but not as its block
    save_file(tensors, path, {"format": "pt"})
    (tmp_path / "sparse" / "masks.safetensors").unlink()
    with pytest.raises(PatternError, match="recorded as 1:2 shared by 16 rows, but 1 groups"):
        read_masks(open_checkpoint(tmp_path / "sparse"))
    assert not inspect(tmp_path / "sparse").whole
    assert "broken-pattern" in {each.kind for each in diagnose(tmp_path / "sparse").findings}


@pytest.mark.parametrize(
    "change", [{"shared_rows": 24}, {"shared_rows": "16"}, {"pattern": None, "layers": []}]
)
def test_records_that_make_no_sense_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    prune(folder(tmp_path / "dense"), tmp_path / "sparse", shared_rows=16)
    path = tmp_path / "sparse" / "config.json"
    raw = json.loads(path.read_text())
    raw["sparsity"] |= change
    path.write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match="'sparsity'"):
        open_checkpoint(tmp_path / "sparse")


@pytest.mark.parametrize("share", [0, 0.3, 0.5, 1])
def test_groups_of_whole_blocks_are_forced(share: float) -> None:
    scores = np.random.default_rng(2).permutation(40 * 8).reshape(40, 8).astype(np.float32)
    mask = forced_mask(scores, BY_16, share)
    kept = brute_force(scores, 16)
    losses = []
    for top in range(0, 40, 16):
        for left in range(0, 8, 2):
            part = slice(top, top + 16), slice(left, left + 2)
            losses.append((scores[part][~kept[part]].sum(), part))
    expected = np.ones(scores.shape, bool)
    for _, part in sorted(losses, key=lambda each: each[0])[: int(share * 12 + 0.5)]:
        expected[part] = kept[part]
    assert np.array_equal(mask, expected)


def test_fine_tuning_takes_the_rows_with_a_method_that_prunes() -> None:
    options = FinetuneOptions(method="gradual", shared_rows=64)
    assert options.target == Pattern(1, 2, 64)
    assert options.meaningful()["shared_rows"] == 64
    assert "shared_rows" not in FinetuneOptions(method="gradual").meaningful()
    with pytest.raises(TrainingError, match="no meaning without a method that prunes"):
        FinetuneOptions(shared_rows=64)
    with pytest.raises(TrainingError, match="only 1:2 can"):
        FinetuneOptions(method="gradual", pattern="2:4", shared_rows=64)


class TestCompressed:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_it_is_a_dense_matrix_and_a_bit_a_pair_and_block(self, shape: tuple[int, int]) -> None:
        weight = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
        mask = mask_from_scores(np.abs(weight), BY_16)
        weight *= mask
        packed = compress(weight, BY_16, mask)
        check_compressed(packed)
        rows, pairs = shape[0], shape[1] // 2
        assert packed.rows == rows
        assert packed.values.shape == (rows, pairs)
        assert packed.bits.shape == (-(-rows // 16), -(-pairs // 8))
        for row in range(rows):
            for pair in range(pairs):
                odd = packed.bits[row // 16, pair // 8] >> pair % 8 & 1
                assert mask[row, 2 * pair + odd]
                assert packed.values[row, pair] == weight[row, 2 * pair + odd]
        assert np.array_equal(decompress(packed), weight)
        assert np.array_equal(compressed_mask(packed), mask)

    def test_a_block_that_disagrees_is_refused(self) -> None:
        mask = mask_from_scores(np.random.default_rng(4).random((32, 8)), ONE_OF_TWO)
        with pytest.raises(PatternError, match="not a complete 1:2 shared by 16 rows mask"):
            compress(np.where(mask, 1.0, 0.0), BY_16, mask)

    @pytest.mark.parametrize("change", ["columns", "values", "bits", "dtype", "beyond"])
    def test_parts_that_compress_does_not_write_are_refused(self, change: str) -> None:
        packed = compress(np.zeros((20, 12), np.float32), BY_16)
        values, bits, columns = packed.values, packed.bits.copy(), 12
        if change == "columns":
            columns = 14
        elif change == "values":
            values = values[:, :-1]
        elif change == "bits":
            bits = bits[:-1]
        elif change == "dtype":
            bits = bits.astype(np.uint32)
        else:
            bits[1, 0] |= np.uint8(1 << 6)
        with pytest.raises(PatternError):
            check_compressed(Compressed(BY_16, columns, values, bits))


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "int8"])
def test_a_packed_file_is_smaller_than_that_of_plain_1_2(tmp_path: Path, dtype: str) -> None:
    """And of the next format version, so that what reads only the first says so."""
    prune(folder(tmp_path / "dense"), tmp_path / "sparse", shared_rows=16)
    prune(tmp_path / "sparse", tmp_path / "plain")
    versions = {}
    for name in ("sparse", "plain"):
        pack(tmp_path / name, tmp_path / f"{name}-packed", dtype=dtype)
        with safe_open(tmp_path / f"{name}-packed" / "packed.safetensors", "np") as file:
            versions[name] = json.loads(file.metadata()["sparsebert"])["format_version"]
    assert versions == {"sparse": 2, "plain": 1}
    sizes = [
        sum(array.nbytes for array in load_file(path / "packed.safetensors").values())
        for path in (tmp_path / "sparse-packed", tmp_path / "plain-packed")
    ]
    assert sizes[0] < sizes[1]
    unpack(tmp_path / "sparse-packed", tmp_path / "back")
    checkpoint = open_checkpoint(tmp_path / "back")
    assert checkpoint.config.recorded_pattern == BY_16
    before, after = read_masks(open_checkpoint(tmp_path / "sparse")), read_masks(checkpoint)
    assert all(np.array_equal(after[name], mask) for name, mask in before.items())
    if dtype == "fp32":
        one, other = (load_file(tmp_path / n / "model.safetensors") for n in ("sparse", "back"))
        assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    assert inspect(tmp_path / "sparse-packed").whole
    assert "1:2 shared by 16 rows" in describe_storage(
        open_packed(tmp_path / "sparse-packed").weights
    )
