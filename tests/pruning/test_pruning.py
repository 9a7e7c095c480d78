"""Pruning a folder: the right weights go, everything else stays, and a failure costs nothing."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bert_folders import bert_config, bert_tensors, prune_by_hand, write_bert, write_folder
from sparsebert.checkpoint import MASKS_NAME, open_checkpoint, read_masks, write_masks
from sparsebert.errors import CheckpointError, OutputError, PatternError
from sparsebert.pruning import prune

ENCODER = [
    f"encoder.layer.{layer}.{name}.weight"
    for layer in range(2)
    for name in (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    )
]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("pattern", ["1:2", "2:4", "4:8"])
def test_the_largest_of_each_group_stay(tmp_path: Path, pattern: str) -> None:
    source = write_bert(tmp_path / "dense")
    result = prune(source, tmp_path / "sparse", pattern=pattern)
    n, m = map(int, pattern.split(":"))
    before = load_file(source / "model.safetensors")
    after = load_file(tmp_path / "sparse" / "model.safetensors")
    assert set(before) == set(after)
    for name, array in before.items():
        expected = prune_by_hand(array, n, m) if name in ENCODER else array
        assert after[name].tobytes() == expected.tobytes(), name
    weights = sum(before[name].size for name in ENCODER)
    assert sorted(result.pruned) == sorted(ENCODER)
    assert result.already_sparse == []
    assert (result.weights, result.zeros) == (weights, weights // 2)
    assert result.sparsity == 0.5


def test_one_of_three(tmp_path: Path) -> None:
    source = write_bert(tmp_path / "dense", hidden_size=12, intermediate_size=18)
    result = prune(source, tmp_path / "sparse", pattern="1:3")
    before = load_file(source / "model.safetensors")
    after = load_file(tmp_path / "sparse" / "model.safetensors")
    for name in ENCODER:
        assert after[name].tobytes() == prune_by_hand(before[name], 1, 3).tobytes()
    assert result.sparsity == pytest.approx(2 / 3)


def test_ties_keep_exactly_one(tmp_path: Path) -> None:
    config = bert_config()
    tensors = bert_tensors(config)
    tensors[ENCODER[0]] = np.array([[1, -1, 2, 2, 0, 0, -3, -3]] * 8, dtype=np.float32)
    prune(write_folder(tmp_path / "dense", config, tensors), tmp_path / "sparse")
    after = load_file(tmp_path / "sparse" / "model.safetensors")[ENCODER[0]]
    assert after.tolist() == [[1, 0, 2, 0, 0, 0, -3, 0]] * 8
    mask = read_masks(open_checkpoint(tmp_path / "sparse"))[ENCODER[0]]
    assert mask.tolist() == [[True, False] * 4] * 8  # the pair of zeros keeps one place too


def test_pruned_weights_are_plus_zero_bit_for_bit(tmp_path: Path) -> None:
    config = bert_config()
    tensors = bert_tensors(config)
    sparse = prune_by_hand(tensors[ENCODER[0]])
    tensors[ENCODER[0]] = np.where(sparse == 0, np.float32(-0.0), sparse)  # as w * mask leaves them
    result = prune(write_folder(tmp_path / "dense", config, tensors), tmp_path / "sparse")
    assert result.already_sparse == [ENCODER[0]]
    after = load_file(tmp_path / "sparse" / "model.safetensors")
    for name in ENCODER:
        assert not np.any(np.signbit(after[name]) & (after[name] == 0))


@pytest.mark.parametrize(
    ("parts", "extra"),
    [
        (("encoder",), []),
        (("pooler",), ["pooler.dense.weight"]),
        (("head", "pooler"), ["pooler.dense.weight", "classifier.weight"]),
        (["encoder", "pooler", "head"], ["pooler.dense.weight", "classifier.weight"]),
    ],
)
def test_parts_choose_the_layers(tmp_path: Path, parts: Any, extra: list[str]) -> None:
    source = write_bert(tmp_path / "dense", "sequence-classification")
    result = prune(source, tmp_path / "sparse", parts=parts)
    expected = (ENCODER if "encoder" in parts else []) + extra
    assert sorted(result.pruned) == sorted(expected)
    assert list(read_masks(open_checkpoint(tmp_path / "sparse"))) == expected


def test_the_folder_says_how_it_was_made(tmp_path: Path) -> None:
    prune(write_bert(tmp_path / "dense"), tmp_path / "sparse", pattern="2:4")
    record = json.loads((tmp_path / "sparse" / "config.json").read_text())["sparsity"]
    assert record["format_version"] == 1
    assert (record["pattern"], record["method"]) == ("2:4", "magnitude")
    assert record["layers"] == ENCODER
    (step,) = record["lineage"]
    assert (step["step"], step["from"]) == ("prune", "dense")
    assert step["arguments"] == {"pattern": "2:4", "method": "magnitude", "parts": ["encoder"]}
    assert "prune" in (tmp_path / "sparse" / "README.md").read_text()
    assert (tmp_path / "sparse" / "vocab.txt").is_file()


def test_every_other_layer_of_the_heads_is_untouched(tmp_path: Path) -> None:
    for head in ("question-answering", "token-classification", "masked-lm"):
        source = write_bert(tmp_path / head, head)
        prune(source, tmp_path / f"{head}-sparse")
        before = load_file(source / "model.safetensors")
        after = load_file(tmp_path / f"{head}-sparse" / "model.safetensors")
        changed = {name for name in before if before[name].tobytes() != after[name].tobytes()}
        assert changed == {f"bert.{name}" for name in ENCODER}


def test_types_are_kept(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file as save_torch

    for dtype in (torch.float16, torch.bfloat16):
        source = write_bert(tmp_path / f"{dtype}")
        tensors = load_torch(source / "model.safetensors")
        tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        tensors["embeddings.position_ids"] = torch.arange(16)[None]
        save_torch(tensors, source / "model.safetensors")
        prune(source, tmp_path / f"{dtype}-sparse")
        after = load_torch(tmp_path / f"{dtype}-sparse" / "model.safetensors")
        for name, tensor in tensors.items():
            expected = tensor
            if name in ENCODER:
                pruned = torch.from_numpy(prune_by_hand(tensor.float().numpy()))
                expected = pruned.to(dtype)
            assert after[name].dtype == tensor.dtype
            assert torch.equal(after[name], expected)


class TestAlreadySparse:
    def test_a_layer_keeps_its_mask(self, tmp_path: Path) -> None:
        """Known from the zeros alone: nothing is recorded, and the pooler is sparse too."""
        config = bert_config()
        tensors = bert_tensors(config)
        for name in (ENCODER[3], "pooler.dense.weight"):
            # Keep the smaller of each pair: magnitude pruning would choose the others.
            tensors[name] = tensors[name] - prune_by_hand(tensors[name])
        source = write_folder(tmp_path / "m", config, tensors)
        result = prune(source, tmp_path / "sparse")
        assert result.already_sparse == [ENCODER[3]]
        after = load_file(tmp_path / "sparse" / "model.safetensors")
        assert np.array_equal(after[ENCODER[3]], tensors[ENCODER[3]])
        record = json.loads((tmp_path / "sparse" / "config.json").read_text())["sparsity"]
        assert record["layers"] == [*ENCODER, "pooler.dense.weight"]

    def test_pruning_twice_changes_nothing(self, tmp_path: Path) -> None:
        prune(write_bert(tmp_path / "dense"), tmp_path / "one")
        result = prune(tmp_path / "one", tmp_path / "two")
        assert result.pruned == []
        assert sorted(result.already_sparse) == sorted(ENCODER)
        for name in ("model.safetensors", MASKS_NAME):
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        lineage = json.loads((tmp_path / "two" / "config.json").read_text())["sparsity"]["lineage"]
        assert [step["from"] for step in lineage] == ["dense", "one"]

    def test_the_method_stays_that_of_the_layers(self, tmp_path: Path) -> None:
        """Pruning that prunes nothing, as to write a record, says nothing about how they were."""
        prune(write_bert(tmp_path / "dense"), tmp_path / "one")
        path = tmp_path / "one" / "config.json"
        config = json.loads(path.read_text())
        for known in ("second-order", None):
            config["sparsity"]["method"] = known
            path.write_text(json.dumps(config))
            prune(tmp_path / "one", tmp_path / "two", force=True)
            record = json.loads((tmp_path / "two" / "config.json").read_text())["sparsity"]
            assert record["method"] == known

    def test_a_stored_mask_is_believed_over_the_zeros(self, tmp_path: Path) -> None:
        prune(write_bert(tmp_path / "dense"), tmp_path / "one")
        path = tmp_path / "one" / "model.safetensors"
        tensors = dict(load_file(path))
        masks = read_masks(open_checkpoint(tmp_path / "one"))
        mask = masks[ENCODER[0]]
        tensors[ENCODER[0]] = np.zeros_like(tensors[ENCODER[0]])
        tensors[ENCODER[0]][0, np.argmax(mask[0])] = 1  # all other kept weights happen to be 0.0
        save_file(tensors, path)
        prune(tmp_path / "one", tmp_path / "two")
        assert np.array_equal(read_masks(open_checkpoint(tmp_path / "two"))[ENCODER[0]], mask)

    def test_a_broken_pattern_is_pruned_anew(self, tmp_path: Path) -> None:
        """Someone fine-tuned without locking the zeros: pruning is the way back."""
        source = write_bert(tmp_path / "dense")
        prune(source, tmp_path / "one")
        save_file(load_file(source / "model.safetensors"), tmp_path / "one" / "model.safetensors")
        with pytest.raises(PatternError):
            read_masks(open_checkpoint(tmp_path / "one"))
        result = prune(tmp_path / "one", tmp_path / "two")
        assert sorted(result.pruned) == sorted(ENCODER)
        assert len(read_masks(open_checkpoint(tmp_path / "two"))) == 12

    def test_a_tighter_pattern_prunes_further_and_a_wider_one_does_not(
        self, tmp_path: Path
    ) -> None:
        prune(write_bert(tmp_path / "dense"), tmp_path / "24", pattern="2:4")
        further = prune(tmp_path / "24", tmp_path / "12", pattern="1:2")
        assert sorted(further.pruned) == sorted(ENCODER)
        back = prune(tmp_path / "12", tmp_path / "48", pattern="4:8")
        assert back.pruned == []
        record = json.loads((tmp_path / "48" / "config.json").read_text())["sparsity"]
        assert record["pattern"] == "4:8"
        masks = read_masks(open_checkpoint(tmp_path / "48"))
        assert all(mask.reshape(-1, 8).sum(axis=1).tolist() == [4] * (mask.size // 8)
                   for mask in masks.values())  # fmt: skip

    def test_a_mask_of_another_pattern_is_not_kept(self, tmp_path: Path) -> None:
        prune(write_bert(tmp_path / "dense"), tmp_path / "one", pattern="2:4")
        masks = read_masks(open_checkpoint(tmp_path / "one"))
        write_masks(tmp_path / "one", masks)
        prune(tmp_path / "one", tmp_path / "two", pattern="1:4")
        after = read_masks(open_checkpoint(tmp_path / "two"))
        for name in ENCODER:
            assert not np.any(after[name] & ~masks[name])
            assert set(after[name].reshape(-1, 4).sum(axis=1)) == {1}


class TestRefusing:
    def test_an_odd_input_dimension_names_the_layer(self, tmp_path: Path) -> None:
        source = write_bert(tmp_path / "dense", intermediate_size=33)
        with pytest.raises(PatternError, match=r"layer\.0\.output\.dense\.weight'.* 33, which"):
            prune(source, tmp_path / "sparse")
        assert not (tmp_path / "sparse").exists()

    @pytest.mark.parametrize("recorded", [True, False])
    def test_a_second_pattern_in_one_model(self, tmp_path: Path, recorded: bool) -> None:
        """It would silently take the first one's record and masks away."""
        head = "sequence-classification"
        first = tmp_path / "first"
        prune(write_bert(tmp_path / "dense", head), first, pattern="3:4")
        if not recorded:
            config = json.loads((first / "config.json").read_text())
            (first / "config.json").write_text(json.dumps({**config, "sparsity": None}))
        with pytest.raises(PatternError, match="another pattern than 1:2.*--parts encoder,head"):
            prune(first, tmp_path / "second", pattern="1:2", parts=("head",))
        prune(first, tmp_path / "same", pattern="3:4", parts=("head",))
        prune(first, tmp_path / "both", pattern="1:2", parts=("encoder", "head"))

    @pytest.mark.parametrize("pattern", ["2:1", "half", "1:2:3", ""])
    def test_patterns_that_are_none(self, tmp_path: Path, pattern: str) -> None:
        with pytest.raises(PatternError):
            prune(write_bert(tmp_path / "dense"), tmp_path / "sparse", pattern=pattern)

    @pytest.mark.parametrize(
        ("parts", "told"),
        [
            ((), "parts must not be empty"),
            ("encoder", "must be a list, not the text 'encoder'"),
            (("body",), "'body' is not a part"),
            (["encoder", "tail"], "'tail' is not a part"),
        ],
    )
    def test_parts_that_are_none(self, tmp_path: Path, parts: Any, told: str) -> None:
        with pytest.raises(PatternError, match=f"{told}.*: choose from encoder, pooler, head"):
            prune(write_bert(tmp_path / "dense"), tmp_path / "sparse", parts=parts)

    def test_a_part_the_model_lacks(self, tmp_path: Path) -> None:
        with pytest.raises(PatternError, match="no linear layer in its head"):
            prune(write_bert(tmp_path / "dense"), tmp_path / "sparse", parts=("head",))

    def test_methods_that_are_none(self, tmp_path: Path) -> None:
        source = write_bert(tmp_path / "dense")
        with pytest.raises(
            PatternError, match="'random' is not a pruning method: choose from magn"
        ):
            prune(source, tmp_path / "sparse", method="random")
        with pytest.raises(PatternError, match="is a fine-tuning method: use it in finetune"):
            prune(source, tmp_path / "sparse", method="gradual")

    @pytest.mark.parametrize("name", [ENCODER[7], "embeddings.LayerNorm.bias", "pooler.dense.bias"])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_weights_that_are_not_finite(self, tmp_path: Path, name: str, value: float) -> None:
        config = bert_config()
        tensors = bert_tensors(config)
        tensors[name].reshape(-1)[3] = value
        source = write_folder(tmp_path / "dense", config, tensors)
        with pytest.raises(CheckpointError, match=f"'{name}' holds 1 values that are NaN"):
            prune(source, tmp_path / "sparse")
        assert [path.name for path in tmp_path.iterdir()] == ["dense"]

    def test_an_existing_output(self, tmp_path: Path) -> None:
        source = write_bert(tmp_path / "dense")
        out = write_bert(tmp_path / "out", seed=3)
        before = contents(out)
        with pytest.raises(OutputError, match="exists"):
            prune(source, out)
        assert contents(out) == before
        prune(source, out, force=True)
        assert len(read_masks(open_checkpoint(out))) == 12
        with pytest.raises(OutputError, match="is the model itself"):
            prune(source, source, force=True)


class TestNothingIsLost:
    @pytest.mark.parametrize(
        "failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()]
    )
    @pytest.mark.parametrize("stage", ["weights", "masks", "config"])
    def test_a_failure_at_any_stage_leaves_the_old_folder(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        failure: BaseException,
        stage: str,
    ) -> None:
        source = write_bert(tmp_path / "dense")
        out = write_bert(tmp_path / "out")
        before = contents(out)

        def fail(*_: object, **__: object) -> None:
            raise failure

        target = {
            "weights": "sparsebert.checkpoint.atomic.os.fsync",
            "masks": "sparsebert.pruning.one_shot.write_mask_bits",
            "config": "sparsebert.checkpoint.auxiliary_files.write_config",
        }[stage]
        monkeypatch.setattr(target, fail)
        expected = OutputError if isinstance(failure, OSError) else KeyboardInterrupt
        with pytest.raises(expected):
            prune(source, out, force=True)
        assert contents(out) == before
        assert {path.name for path in tmp_path.iterdir()} == {"dense", "out"}

    def test_an_interrupt_in_the_middle_of_the_weights(self, tmp_path: Path) -> None:
        source = write_bert(tmp_path / "dense")

        def stop(_label: str, done: int, _total: int) -> None:
            if done == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prune(source, tmp_path / "out", progress=stop)
        assert [path.name for path in tmp_path.iterdir()] == ["dense"]


def test_a_write_that_the_system_refuses(tmp_path: Path) -> None:
    """No stand-in: the kernel itself stops the file from growing."""
    resource = pytest.importorskip("resource")
    source = write_bert(tmp_path / "dense", hidden_size=64, intermediate_size=256)
    out = write_bert(tmp_path / "out")
    before = contents(out)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="out could not be written: File too large"):
            prune(source, out, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(out) == before
    assert {path.name for path in tmp_path.iterdir()} == {"dense", "out"}


def test_a_process_that_is_killed(tmp_path: Path) -> None:
    """Nothing can tidy up after it, but the old folder is whole."""
    source = write_bert(tmp_path / "dense")
    out = write_bert(tmp_path / "out")
    before = contents(out)
    code = (
        "import os, signal, sys\n"
        "from sparsebert.pruning import prune\n"
        "def stop(label, done, total):\n"
        "    if done == 9: os.kill(os.getpid(), signal.SIGKILL)\n"
        "prune(sys.argv[1], sys.argv[2], force=True, progress=stop)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, source, out], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert contents(out) == before


def test_one_tensor_is_in_memory_at_a_time(tmp_path: Path) -> None:
    source = write_bert(
        tmp_path / "dense", hidden_size=64, intermediate_size=256, num_hidden_layers=24
    )
    size = (source / "model.safetensors").stat().st_size
    prune(source, tmp_path / "warm-up")
    tracemalloc.start()
    prune(source, tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 4  # the largest tensor is a seventieth of it, and there are masks


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    prune(
        write_bert(tmp_path / "dense"), tmp_path / "out", progress=lambda *step: told.append(step)
    )
    count = len(bert_tensors(bert_config()))
    assert told == [("pruning dense to 1:2", done, count) for done in range(count + 1)]


def test_the_real_model_prunes_and_transformers_loads_it(minilm: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    result = prune(minilm, tmp_path / "sparse")
    assert (result.weights, result.zeros) == (10_616_832, 5_308_416)
    assert result.seconds < 30
    model = transformers.AutoModel.from_pretrained(tmp_path / "sparse")
    weight = model.encoder.layer[5].output.dense.weight.detach().numpy()
    dense = load_file(minilm / "model.safetensors")["encoder.layer.5.output.dense.weight"]
    assert np.array_equal(weight, np.where(weight != 0, dense, 0))
    assert np.all(np.count_nonzero(weight.reshape(-1, 2), axis=1) == 1)
