"""`doctor` on model folders: masks, weights, and what a training's checkpoints would leak."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import sparsebert as sb
from bert_folders import write_bert
from findings import by_kind, the_check
from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.checkpoint.families import FAMILIES
from sparsebert.diagnosis import diagnose
from sparsebert.patterns import pack_mask

QUERY = "encoder.layer.0.attention.self.query.weight"
OUTPUT = "encoder.layer.1.output.dense.weight"
CHECKS_OF_A_MODEL = {
    *("opening", "values", "sharing", "tokenizer", "recorded pattern", "stored masks"),
    *("other layers", "optimiser state", "available", "training", "answering", "record"),
}


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    return write_bert(tmp_path / "dense")


@pytest.fixture
def sparse(dense: Path) -> Path:
    sb.prune(dense, dense.with_name("sparse"))
    return dense.with_name("sparse")


def change(folder: Path, changes: dict[str, Any]) -> None:
    """Write other weights: for each name a function of the old ones."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, function in changes.items():
        tensors[name] = function(tensors[name])
    save_file(tensors, path, metadata={"format": "pt"})


def edit_config(folder: Path, edit: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))


def revive(weight: np.ndarray, count: int = 3) -> np.ndarray:
    """Give the first ``count`` zeros of the matrix values."""
    changed = weight.copy().reshape(-1)
    changed[np.flatnonzero(changed == 0)[:count]] = 0.5
    return changed.reshape(weight.shape)


def test_a_dense_and_a_sparse_model_have_nothing(dense: Path, sparse: Path) -> None:
    for folder in (dense, sparse):
        report = diagnose(folder)
        assert report.findings == []
        assert {check.name for check in report.checks} == CHECKS_OF_A_MODEL
        assert report.healthy
    # 2 layers of 4 [8, 8], one [24, 8] and one [8, 24] matrix, in pairs.
    held = the_check(diagnose(sparse), "recorded pattern").seen
    assert held == f"1:2 holds in 12 of 12 layers ({2 * (4 * 64 + 2 * 192) // 2:,} pairs)"


def test_packed_folders_are_looked_at_too(sparse: Path, tmp_path: Path) -> None:
    sb.pack(sparse, tmp_path / "packed", dtype="int8")
    report = diagnose(tmp_path / "packed")
    assert report.findings == []
    assert "holds in 12 of 12 layers" in the_check(report, "recorded pattern").seen
    assert "training" not in {check.name for check in report.checks}  # it cannot be trained


def test_revived_weights_are_counted_layer_by_layer(sparse: Path) -> None:
    change(sparse, {QUERY: revive, OUTPUT: lambda weight: revive(weight, 2)})
    found = by_kind(diagnose(sparse))
    assert set(found) == {"revived-weights"}
    assert found["revived-weights"].count == 5
    assert found["revived-weights"].examples == (
        f"{QUERY}: 3 weights, 3 of 32 (9.4 %) pairs broken",
        f"{OUTPUT}: 2 weights, 2 of 96 (2.1 %) pairs broken",
    )
    assert not diagnose(sparse).healthy


def test_a_broken_pattern_without_masks(sparse: Path) -> None:
    (sparse / "masks.safetensors").unlink()
    assert set(by_kind(diagnose(sparse))) == {"mask-missing"}
    change(sparse, {QUERY: revive})
    found = by_kind(diagnose(sparse))
    assert set(found) == {"mask-missing", "broken-pattern"}
    assert (found["broken-pattern"].count, found["broken-pattern"].total) == (3, 32)
    assert found["broken-pattern"].examples == (f"{QUERY}: 3 of 32 (9.4 %) pairs",)
    assert found["mask-missing"].count == found["mask-missing"].total == 12


def test_a_weight_that_came_back_without_breaking_a_pair(sparse: Path) -> None:
    def swap(weight: np.ndarray) -> np.ndarray:
        changed = weight.copy()
        changed[0, :2] = changed[0, 1::-1]
        return changed

    change(sparse, {QUERY: swap})
    found = by_kind(diagnose(sparse))
    assert found["revived-weights"].examples == (f"{QUERY}: 1 weight, 0 of 32 (0 %) pairs broken",)


def test_some_masks_are_missing(sparse: Path) -> None:
    masks = load_file(sparse / "masks.safetensors")
    del masks[QUERY]
    save_file(masks, sparse / "masks.safetensors")
    found = by_kind(diagnose(sparse))
    assert set(found) == {"mask-missing"}
    assert found["mask-missing"].examples == (QUERY,)


def test_a_mask_of_another_pattern(sparse: Path) -> None:
    masks = load_file(sparse / "masks.safetensors")
    other = np.tile([True, True, False, False], (8, 2))
    masks[QUERY] = pack_mask(other)
    save_file(masks, sparse / "masks.safetensors")
    found = by_kind(diagnose(sparse))
    assert set(found) == {"mask-mismatch"}  # the weights are as recorded, and are not accused
    assert found["mask-mismatch"].examples == (QUERY,)


def test_masks_that_nobody_recorded(sparse: Path) -> None:
    edit_config(sparse, lambda config: config["sparsity"]["layers"].remove(QUERY))
    found = by_kind(diagnose(sparse))
    assert set(found) == {"mask-not-recorded"}
    assert found["mask-not-recorded"].examples == (QUERY,)


@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_masks_that_cannot_be_read(sparse: Path, damage: str) -> None:
    path = sparse / "masks.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    else:
        save_file({"decoder.weight": np.zeros((2, 2), np.uint8)}, path)
    found = by_kind(diagnose(sparse))
    assert set(found) == {"unreadable-masks"}
    assert "masks.safetensors" in found["unreadable-masks"].what


def test_another_tools_sparse_folder(sparse: Path) -> None:
    (sparse / "masks.safetensors").unlink()
    edit_config(sparse, lambda config: config.pop("sparsity"))
    report = diagnose(sparse)
    found = by_kind(report)
    assert set(found) == {"unrecorded-pattern"}
    assert found["unrecorded-pattern"].count == 12
    assert f"{QUERY}: 1:2" in found["unrecorded-pattern"].examples
    assert report.healthy  # a note is no error
    assert (
        "`sparsebert prune --pattern 1:2 --parts encoder` writes"
        in found["unrecorded-pattern"].remedy
    )


def test_a_remedy_that_keeps_the_weights(dense: Path, tmp_path: Path) -> None:
    """Pruning to the default pattern would halve what a 2:4 model keeps, or touch dense layers."""
    sb.prune(dense, tmp_path / "sparse", pattern="2:4")
    edit_config(tmp_path / "sparse", lambda config: config["sparsity"]["layers"].remove(QUERY))
    remedy = by_kind(diagnose(tmp_path / "sparse"))["mask-not-recorded"].remedy
    assert "`sparsebert prune --pattern 2:4 --parts encoder` writes" in remedy
    (tmp_path / "sparse/masks.safetensors").unlink()
    change(tmp_path / "sparse", {OUTPUT: revive})
    edit_config(tmp_path / "sparse", lambda config: config.pop("sparsity"))
    remedy = by_kind(diagnose(tmp_path / "sparse"))["unrecorded-pattern"].remedy
    assert "Do not use `sparsebert prune`" in remedy
    sb.prune(dense, tmp_path / "pooler", parts=["pooler"])  # the encoder stays dense
    edit_config(tmp_path / "pooler", lambda config: config.pop("sparsity"))
    remedy = by_kind(diagnose(tmp_path / "pooler"))["mask-not-recorded"].remedy
    assert "`sparsebert prune --pattern 1:2 --parts pooler` writes" in remedy


def test_zeros_that_fit_no_pattern(dense: Path) -> None:
    def half(weight: np.ndarray) -> np.ndarray:
        changed = weight.copy()
        changed[:, :3] = 0  # of eight: too few for 4:8, and the other pairs are full
        return changed

    change(dense, {QUERY: half})
    found = by_kind(diagnose(dense))
    assert set(found) == {"zeros-without-pattern"}
    assert found["zeros-without-pattern"].examples == (f"{QUERY}: 37.5% zeros",)


def test_zeros_of_a_pattern_that_is_not_detected(dense: Path, tmp_path: Path) -> None:
    """Pruning to it, as the remedy says, records it and changes no weight."""
    sb.prune(dense, tmp_path / "sparse", pattern="3:4")
    (tmp_path / "sparse" / "masks.safetensors").unlink()
    edit_config(tmp_path / "sparse", lambda config: config.pop("sparsity"))
    finding = by_kind(diagnose(tmp_path / "sparse"))["zeros-without-pattern"]
    assert finding.what.endswith("no record, and they fit none of 1:3, 1:2, 2:4, 4:8.")
    assert "`sparsebert prune --pattern N:M`" in finding.remedy
    sb.prune(tmp_path / "sparse", tmp_path / "recorded", pattern="3:4")
    assert by_kind(diagnose(tmp_path / "recorded")) == {}
    before, after = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("sparse", "recorded")
    )
    assert before == after


def test_weights_that_are_no_numbers(dense: Path) -> None:
    def spoil(weight: np.ndarray) -> np.ndarray:
        changed = weight.copy()
        changed[0, 1] = np.nan
        return changed

    change(dense, {OUTPUT: spoil})
    found = by_kind(diagnose(dense))
    assert set(found) == {"non-finite-weights"}
    assert found["non-finite-weights"].examples == (OUTPUT,)


def test_layers_that_are_one(dense: Path) -> None:
    tensors = load_file(dense / "model.safetensors")
    change(dense, {OUTPUT: lambda _: tensors[OUTPUT.replace("1", "0")]})
    found = by_kind(diagnose(dense))
    assert set(found) == {"shared-weights"}
    assert found["shared-weights"].examples == (f"{OUTPUT.replace('1', '0')} = {OUTPUT}",)


def test_a_folder_that_does_not_open(dense: Path) -> None:
    (dense / "model.safetensors").write_bytes(b"\x10" * 40)
    report = diagnose(dense)
    assert set(by_kind(report)) == {"unreadable-model"}
    assert "model.safetensors" in report.findings[0].what


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_a_model_without_a_tokenizer(tiny_bert: Any, tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(tiny_bert(), tmp_path / "model")
    assert by_kind(diagnose(folder)) == {}
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)
    if damage == "damaged":
        (folder / "tokenizer.json").write_text("{")
    assert set(by_kind(diagnose(folder))) == {"no-tokenizer"}


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(sb.errors.CheckpointError, match="neither|not a model folder"):
        diagnose(tmp_path)


class TestCheckpoints:
    """Two steps of transformers' own Trainer on a sparse model, with the lock and without."""

    @pytest.fixture(scope="class")
    def sparse(self, tiny_bert: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("leaks")
        sb.prune(tiny_bert("sequence-classification"), folder / "sparse")
        return folder / "sparse"

    @pytest.fixture(scope="class", params=["adamw_torch", "sgd"])
    def trainers(self, request: Any, sparse: Path) -> dict[bool, Any]:
        """By whether the lock was on: the Trainer after two steps, its checkpoint written."""
        return {lock: self._trained(sparse, request.param, lock) for lock in (True, False)}

    def _trained(
        self, sparse: Path, optimizer: str, lock: bool, resumed: Path | None = None
    ) -> Any:
        import torch
        from transformers import (
            AutoModelForSequenceClassification,
            Trainer,
            TrainingArguments,
        )

        from sparsebert.training.locked_masks import LockedMasks, LockedMasksCallback

        model = AutoModelForSequenceClassification.from_pretrained(sparse)
        random = torch.Generator().manual_seed(3)
        rows = [
            {"input_ids": torch.randint(5, 60, (7,), generator=random), "labels": row % 3}
            for row in range(8)
        ]
        out = sparse.with_name(f"{optimizer}-{lock}{'-resumed' if resumed else ''}")
        args = TrainingArguments(
            str(out),
            max_steps=4 if resumed else 2,
            save_steps=2,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            optim=optimizer,
            optim_args="momentum=0.9" if optimizer == "sgd" else None,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(model, args, train_dataset=rows)
        if lock:
            masks = read_masks(open_checkpoint(sparse))
            trainer.add_callback(LockedMasksCallback(LockedMasks(masks)))
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
        return trainer

    def test_a_locked_training_leaks_nothing(self, trainers: dict[bool, Any]) -> None:
        report = diagnose(trainers[True].args.output_dir)
        assert report.findings == []
        seen = the_check(report, "checkpoint-2").seen
        assert "12 masks (its own masks.safetensors)" in seen
        assert "first moments of 12 of these layers" in seen

    def test_an_unlocked_one_does(
        self, trainers: dict[bool, Any], sparse: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainer = trainers[False]
        work = Path(trainer.args.output_dir)
        # As `sparsebert finetune` names it: beside the model whose masks it should have kept.
        beside = sparse.with_name("sparse.training")
        shutil.copytree(work, beside)
        try:
            found = by_kind(diagnose(sparse))
            monkeypatch.chdir(sparse)
            assert by_kind(diagnose(".")).keys() == found.keys()
        finally:
            shutil.rmtree(beside)
        assert set(found) == {"leaking-optimizer", "revived-in-training", "unfinished-training"}
        masks = read_masks(open_checkpoint(sparse))
        expected = 0
        for name, parameter in trainer.model.named_parameters():
            mask = masks.get(name.removeprefix("bert."))
            if mask is not None:
                state = trainer.optimizer.state[parameter]
                moment = state.get("exp_avg", state.get("momentum_buffer")).numpy()
                expected += int(np.count_nonzero(moment[~mask]))
        assert found["leaking-optimizer"].count == expected > 0
        assert "resume the training with" in found["leaking-optimizer"].remedy
        weights = {
            name.removeprefix("bert."): each for name, each in trainer.model.named_parameters()
        }
        assert found["revived-in-training"].count == sum(
            int(np.count_nonzero(weights[name].detach().numpy()[~mask]))
            for name, mask in masks.items()
        )

    def test_resumed_with_the_lock_its_momentum_revives_nothing(
        self, trainers: dict[bool, Any], sparse: Path
    ) -> None:
        """As the remedy says; deleting optimizer.pt would also begin the rate's schedule again."""
        unlocked = trainers[False].args
        checkpoint = Path(unlocked.output_dir) / "checkpoint-2"
        trainer = self._trained(sparse, unlocked.optim.value, True, checkpoint)
        assert trainer.state.global_step == 4
        weights = {
            name.removeprefix("bert."): each for name, each in trainer.model.named_parameters()
        }
        for name, mask in read_masks(open_checkpoint(sparse)).items():
            assert not np.any(weights[name].detach().numpy()[~mask])

    @pytest.mark.parametrize("optimizer", ["adamw_torch", "sgd"])
    @pytest.mark.parametrize(
        "model_type", ["roberta", "distilbert", "electra", "mpnet", "modernbert"]
    )
    def test_momenta_are_found_in_every_family(
        self, tiny_bert: Any, tmp_path: Path, model_type: str, optimizer: str
    ) -> None:
        sparse = tmp_path / "sparse"
        sb.prune(tiny_bert("sequence-classification", model_type=model_type), sparse)
        masks, family = read_masks(open_checkpoint(sparse)), FAMILIES[model_type]
        trainer = self._trained(sparse, optimizer, False)
        parameters = {family.canonical(n): each for n, each in trainer.model.named_parameters()}
        expected = 0
        for name, mask in masks.items():
            state = trainer.optimizer.state[parameters[name]]
            moment = state.get("exp_avg", state.get("momentum_buffer")).numpy()
            expected += int(np.count_nonzero(moment[~mask]))
        Path(trainer.args.output_dir).rename(tmp_path / "sparse.training")
        found = by_kind(diagnose(sparse))
        assert found["leaking-optimizer"].count == expected > 0

    def test_without_any_mask_the_record_tells(self, trainers: dict[bool, Any]) -> None:
        found = by_kind(diagnose(trainers[False].args.output_dir))
        assert set(found) == {"revived-in-training"}
        assert "records as pruned" in found["revived-in-training"].what

    @pytest.mark.parametrize("damage", ["pickle", "garbage", "nothing in it"])
    def test_an_optimizer_that_cannot_be_read(
        self, trainers: dict[bool, Any], tmp_path: Path, damage: str
    ) -> None:
        import torch

        folder = shutil.copytree(Path(trainers[True].args.output_dir), tmp_path / "work")
        file = folder / "checkpoint-2" / "optimizer.pt"
        if damage == "pickle":
            torch.save({"state": Path("/etc")}, file)  # an object that would need code
        elif damage == "garbage":
            file.write_bytes(b"PK\x03\x04 no optimiser")
        else:
            torch.save({"state": {}, "param_groups": [7]}, file)
        report = diagnose(folder)
        if damage == "nothing in it":
            assert report.findings == []
            assert "does not identify its parameters" in the_check(report, "checkpoint-2").seen
        else:
            found = by_kind(report)
            assert set(found) == {"unreadable-checkpoint"}
            what = found["unreadable-checkpoint"].what
            assert "optimizer.pt is not a readable optimiser state" in what

    def test_without_torch_it_says_so(
        self, trainers: dict[bool, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sparsebert.diagnosis.optimizer_state.find_spec", lambda name: None)
        seen = the_check(diagnose(trainers[True].args.output_dir), "checkpoint-2").seen
        assert "optimizer.pt was not read, because torch is not installed" in seen
