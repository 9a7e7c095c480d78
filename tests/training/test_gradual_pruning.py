"""The gradual pruner: counts of its masks, their zeros, their saliencies, resuming."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.numpy import load_file, save_file

from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.errors import CheckpointError, TrainingError
from sparsebert.patterns import Pattern, is_whole, mask_from_scores
from sparsebert.pruning.gradual import SparsitySchedule, forced_count
from sparsebert.training.gradual_pruning import (
    PRUNER_STATE_NAME,
    GradualPruner,
    GradualPrunerCallback,
    GradualPruning,
)
from tiny_models import TinyBert

METHODS = ("gradual", "snip-momentum")
SCHEDULE = SparsitySchedule(start=2, end=9, interval=3, steps=12)  # updates after steps 5, 8 and 9


def classifier(tiny_bert: TinyBert) -> Any:
    folder = tiny_bert("sequence-classification")
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder)


def encoder_weights(model: Any) -> dict[str, Any]:
    return {
        name.removeprefix("bert."): parameter
        for name, parameter in model.named_parameters()
        if ".encoder." in name and parameter.dim() == 2
    }


def pruning(model: Any, method: str = "gradual", pattern: str = "1:2") -> GradualPruning:
    layers = {name: tuple(each.shape) for name, each in encoder_weights(model).items()}
    return GradualPruning(method, Pattern.parse(pattern), SCHEDULE, layers)


def batch(seed: int, rows: int = 4) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 40, (rows, 9), generator=generator)
    return {"input_ids": ids, "labels": torch.randint(0, 3, (rows,), generator=generator)}


OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adafactor": lambda p: transformers.optimization.Adafactor(
        p, lr=0.01, scale_parameter=False, relative_step=False, weight_decay=0.1
    ),
}


def train(model: Any, masks: GradualPruner, optimizer: Any, steps: range, batches: int = 1) -> None:
    """Train as the Trainer with its callback does; ``steps`` are those done after each one."""
    for step in steps:
        for part in range(batches):
            (model(**batch(step * 10 + part)).loss / batches).backward()
        masks.accumulate()
        optimizer.step()
        masks.apply()
        optimizer.zero_grad()
        masks.update(step, optimizer)


def assert_zero_bits(model: Any, masks: GradualPruner) -> None:
    for name, weight in encoder_weights(model).items():
        pruned = weight.detach().numpy()[~masks.masks[name]]
        assert not pruned.view(np.int32).any(), name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("pattern", ["1:2", "2:4"])
def test_the_ramp_forces_as_many_groups_as_it_says_and_zeros_hold(
    tiny_bert: TinyBert, method: str, optimizer: str, pattern: str
) -> None:
    model = classifier(tiny_bert)
    masks = GradualPruner(pruning(model, method, pattern), {})
    masks.attach(model)
    steps = OPTIMIZERS[optimizer](model.parameters())
    wanted = Pattern.parse(pattern)
    share = 0.0
    for step in range(1, SCHEDULE.steps + 1):
        before = dict(masks.masks)
        train(model, masks, steps, range(step, step + 1))
        if step in (5, 8, 9):
            share = SCHEDULE.share(step)
        else:
            assert all(masks.masks[name] is mask for name, mask in before.items())
        for mask in masks.masks.values():
            kept = mask.reshape(-1, wanted.m).sum(axis=1)
            assert set(kept) <= {wanted.n, wanted.m}
            assert np.count_nonzero(kept == wanted.n) == forced_count(share, len(kept))
        assert_zero_bits(model, masks)
        if step < SCHEDULE.end:
            with pytest.raises(TrainingError, match=rf"did not reach the pattern {pattern}"):
                masks.check_whole()
    masks.check_whole()
    masks.verify(model)
    assert all(is_whole(mask, wanted) for mask in masks.masks.values())


def test_gradual_prunes_the_smallest_magnitudes(tiny_bert: TinyBert) -> None:
    model = classifier(tiny_bert)
    masks = GradualPruner(pruning(model), {})
    masks.attach(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, masks, optimizer, range(1, 5))
    weights = {name: each.detach().clone() for name, each in encoder_weights(model).items()}
    masks.update(5, optimizer)
    for name, weight in weights.items():
        pairs = weight.abs().reshape(-1, 2).numpy()
        least = np.argsort(pairs.min(axis=1))[: forced_count(SCHEDULE.share(5), len(pairs))]
        expected = np.ones(pairs.shape, bool)
        expected[least, pairs[least].argmin(axis=1)] = False
        assert np.array_equal(masks.masks[name].reshape(-1, 2), expected)


class OneLayer(transformers.PreTrainedModel):  # type: ignore[misc, name-defined]
    """Four pairs of weights, moved by hand."""

    def __init__(self, weights: list[float]) -> None:
        super().__init__(transformers.BertConfig())
        self.layer = torch.nn.Linear(len(weights), 1, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([weights]))

    def values(self) -> list[float]:
        values: list[float] = self.layer.weight[0].tolist()
        return values


def one_layer(weights: list[float], schedule: SparsitySchedule) -> tuple[OneLayer, GradualPruner]:
    model = OneLayer(weights)
    layers = {"layer.weight": (1, len(weights))}
    masks = GradualPruner(GradualPruning("gradual", Pattern(1, 2), schedule, layers), {})
    masks.attach(model)
    return model, masks


def test_a_pruned_weight_comes_back_with_its_value_and_without_momentum() -> None:
    schedule = SparsitySchedule(
        0, 4, 1, 8
    )  # of four pairs 2, 4, 4 and 4 are forced (0.58, 0.88, 0.98 and 1)
    model, masks = one_layer([8, 1, 7, 2, 6, 5, 5, 4], schedule)
    weight = model.layer.weight
    optimizer = torch.optim.AdamW([weight], lr=0.0, weight_decay=0.0)
    weight.sum().backward()
    optimizer.step()
    state = optimizer.state[weight]
    assert state["exp_avg"].all()
    second = state["exp_avg_sq"].clone()

    masks.update(1, optimizer)
    assert model.values() == [8, 0, 7, 0, 6, 5, 5, 4]
    assert state["exp_avg"][0].bool().tolist() == [True, False, True, False, *[True] * 4]
    assert torch.equal(state["exp_avg_sq"], second)

    with torch.no_grad():
        weight[0, 0], weight[0, 7] = 0.5, 0.25  # what training might have done
    masks.update(2, optimizer)
    assert model.values() == [0, 1, 7, 0, 6, 0, 5, 0]  # 1 is back, and 0.5 remembered
    assert state["exp_avg"][0].bool().tolist() == [
        *(False, False, True, False),
        *(True, False, True, False),
    ]

    with torch.no_grad():
        weight[0, 1] = 0.125
    masks.update(3, optimizer)
    assert model.values() == [0.5, 0, 7, 0, 6, 0, 5, 0]
    masks.update(4, optimizer)
    masks.check_whole()
    with torch.no_grad():
        weight[0, 0] = 0.0625
    masks.update(5, optimizer)  # locked: what was pruned is forgotten
    assert model.values() == [0.0625, 0, 7, 0, 6, 0, 5, 0]


def test_a_forced_group_becomes_dense_again_if_another_loses_less() -> None:
    model, masks = one_layer([8, 1, 7, 2, 6, 5, 5, 4], SparsitySchedule(0, 10, 1, 20))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    masks.update(1, optimizer)  # 0.27 of four pairs: one
    assert model.values() == [8, 0, 7, 2, 6, 5, 5, 4]
    with torch.no_grad():
        model.layer.weight[0, 3] = 0.5
    schedule = masks.pruning.schedule
    assert forced_count(schedule.share(2), 4) == 2
    masks.update(1, optimizer)
    assert model.values() == [8, 1, 7, 0, 6, 5, 5, 4]


@pytest.mark.parametrize("batches", [1, 3])
def test_saliency_is_that_of_autograd(tiny_bert: TinyBert, batches: int) -> None:
    """Against gradients of a twin that nothing holds, its pruned weights being zero as well."""
    model = classifier(tiny_bert).eval()
    twin = classifier(tiny_bert).eval()
    masks = GradualPruner(pruning(model, "snip-momentum"), {})
    masks.attach(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    expected = {name: torch.zeros_like(each) for name, each in encoder_weights(twin).items()}
    remembered = {name: torch.zeros_like(each) for name, each in encoder_weights(twin).items()}
    for step in range(1, 8):
        twin.load_state_dict(model.state_dict())
        twin.zero_grad()
        rows = [batch(step * 10 + part) for part in range(batches)]
        joined = {key: torch.cat([each[key] for each in rows]) for key in rows[0]}
        twin(**joined).loss.backward()
        for name, weight in encoder_weights(twin).items():
            value = (weight.detach() + remembered[name]).abs()
            expected[name] = 0.9 * expected[name] + value * weight.grad.abs()
        before = {name: each.detach().clone() for name, each in encoder_weights(model).items()}
        train(model, masks, optimizer, range(step, step + 1), batches)
        for name, saliency in masks._saliency.items():
            torch.testing.assert_close(saliency, expected[name], rtol=1e-4, atol=1e-7)
        if step == 5:
            for name, mask in masks.masks.items():
                remembered[name] = masks._remembered[name].clone()
                pruned = torch.from_numpy(~mask)
                assert torch.equal(remembered[name] != 0, pruned)
                assert not torch.equal(remembered[name][pruned], before[name][pruned])
    assert all(mask.mean() < 0.75 for mask in masks.masks.values())


def test_masks_follow_the_saliency(tiny_bert: TinyBert) -> None:
    model = classifier(tiny_bert)
    masks = GradualPruner(pruning(model, "snip-momentum"), {})
    masks.attach(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(1, SCHEDULE.end + 1):
        for part in range(2):
            model(**batch(step * 10 + part)).loss.backward()
        masks.accumulate()
        optimizer.step()
        optimizer.zero_grad()
        saliency = {name: each.clone().numpy() for name, each in masks._saliency.items()}
        masks.update(step, optimizer)
    for name, mask in masks.masks.items():
        assert np.array_equal(mask, mask_from_scores(saliency[name], Pattern(1, 2)))
    assert not masks._saliency
    assert not masks._remembered
    model(**batch(0)).loss.backward()
    assert not masks._gradients


def test_layers_that_are_sparse_already_stay_locked(tiny_bert: TinyBert) -> None:
    model = classifier(tiny_bert)
    plan = pruning(model)
    name = "encoder.layer.1.output.dense.weight"
    weight = encoder_weights(model)[name]
    mask = mask_from_scores(-weight.detach().abs().numpy(), Pattern(1, 2))  # no method's choice
    layers = {each: shape for each, shape in plan.layers.items() if each != name}
    masks = GradualPruner(GradualPruning("gradual", plan.pattern, SCHEDULE, layers), {name: mask})
    masks.attach(model)
    train(model, masks, torch.optim.AdamW(model.parameters(), lr=0.01), range(1, 13))
    assert np.array_equal(masks.masks[name], mask)
    assert_zero_bits(model, masks)
    masks.verify(model)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("at", [3, 6, 10])
def test_restored_masks_go_on_to_the_same_bits(
    tiny_bert: TinyBert, tmp_path: Path, method: str, at: int
) -> None:
    model = classifier(tiny_bert).eval()
    masks = GradualPruner(pruning(model, method), {})
    masks.attach(model)
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    train(model, masks, optimizer, range(1, at + 1))

    model.save_pretrained(tmp_path)
    masks.save(tmp_path)
    assert (tmp_path / PRUNER_STATE_NAME).exists() is (at < SCHEDULE.end)
    twin = classifier(tiny_bert).eval()
    twin.load_state_dict(model.state_dict())
    restored = GradualPruner(pruning(twin, method), {})
    restored.restore(tmp_path)
    restored.attach(twin)
    other = OPTIMIZERS["adamw"](twin.parameters())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # else they share tensors

    train(model, masks, optimizer, range(at + 1, 13))
    train(twin, restored, other, range(at + 1, 13))
    for name, weight in model.state_dict().items():
        assert np.array_equal(
            weight.numpy().view(np.uint8), twin.state_dict()[name].numpy().view(np.uint8)
        ), name
    for name, mask in masks.masks.items():
        assert np.array_equal(mask, restored.masks[name])


def test_a_damaged_or_foreign_state_is_refused(tiny_bert: TinyBert, tmp_path: Path) -> None:
    model = classifier(tiny_bert)
    masks = GradualPruner(pruning(model, "snip-momentum"), {})
    masks.attach(model)
    folder = tmp_path / "checkpoint-3"
    model.save_pretrained(folder)
    masks.save(folder)
    file = folder / PRUNER_STATE_NAME
    whole = load_file(file)

    def restore() -> None:
        GradualPruner(pruning(model, "snip-momentum"), {}).restore(folder)

    restore()
    name = "encoder.layer.0.output.dense.weight"
    for broken in (
        {key: value for key, value in whole.items() if key != f"{name}.remembered"},
        {**whole, f"{name}.saliency": whole[f"{name}.saliency"][:1]},
        {**whole, f"{name}.remembered": whole[f"{name}.remembered"].astype(np.float16)},
    ):
        save_file(broken, file)
        with pytest.raises(TrainingError, match=rf"has no '{name}\..*remove {tmp_path} to start"):
            restore()
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="not a valid safetensors file"):
        restore()
    file.unlink()
    with pytest.raises(TrainingError, match="did not reach the pattern 1:2"):
        restore()
    bits = load_file(folder / "masks.safetensors")
    del bits[name]
    save_file(bits, folder / "masks.safetensors")
    with pytest.raises(TrainingError, match=rf"masks.safetensors has no '{name}' that fits"):
        restore()


@pytest.mark.parametrize("method", METHODS)
def test_the_callback_works_in_anyones_trainer(
    tiny_bert: TinyBert, tmp_path: Path, method: str
) -> None:
    model = classifier(tiny_bert)
    masks = GradualPruner(pruning(model, method), {})
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=12,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            learning_rate=0.01,
            save_steps=6,
            report_to="none",
            disable_tqdm=True,
            log_level="error",
            dataloader_pin_memory=False,
        ),
        train_dataset=[
            {key: value[0] for key, value in batch(each, 1).items()} for each in range(24)
        ],
        callbacks=[GradualPrunerCallback(masks)],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    assert_zero_bits(model, masks)
    assert all(is_whole(mask, Pattern(1, 2)) for mask in masks.masks.values())
    kept = load_file(tmp_path / "checkpoint-6" / PRUNER_STATE_NAME)
    assert f"{next(iter(masks.masks))}.remembered" in kept
    assert not (tmp_path / "checkpoint-12" / PRUNER_STATE_NAME).exists()
    found = read_masks(open_checkpoint(tmp_path / "checkpoint-12"))
    assert all(np.array_equal(found[name], mask) for name, mask in masks.masks.items())
