"""Pruned weights stay exactly 0.0 through any training, and the test can fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.errors import TrainingError
from sparsebert.patterns import ONE_OF_TWO, mask_from_scores
from sparsebert.training.locked_masks import LockedMasks, LockedMasksCallback
from tiny_models import TinyBert


def pruned_model(folder: Path) -> tuple[Any, dict[str, Any]]:
    """A classifier whose encoder is pruned by magnitude, and its masks."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    masks = {}
    for name, parameter in model.named_parameters():
        if ".encoder." in name and parameter.dim() == 2:
            mask = mask_from_scores(parameter.detach().abs().numpy(), ONE_OF_TWO)
            masks[name.removeprefix("bert.")] = mask
            with torch.no_grad():
                parameter.masked_fill_(torch.from_numpy(~mask), 0.0)
    return model, masks


@pytest.fixture
def pruned(tiny_bert: TinyBert) -> tuple[Any, dict[str, Any]]:
    return pruned_model(tiny_bert("sequence-classification"))


def assert_zero_bits(model: Any, masks: dict[str, Any]) -> None:
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        weight = parameters["bert." + name].detach()[torch.from_numpy(~mask)]
        assert not weight.view(torch.uint8).any(), name


def batch(rows: int = 4) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 40, (rows, 9), generator=generator)
    return {"input_ids": ids, "labels": torch.randint(0, 3, (rows,), generator=generator)}


OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adafactor": lambda p: transformers.optimization.Adafactor(
        p, lr=0.01, scale_parameter=False, relative_step=False, weight_decay=0.1
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zeros_hold_for_every_optimiser(pruned: tuple[Any, Any], name: str) -> None:
    model, masks = pruned
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    locked = LockedMasks(masks)
    locked.attach(model)
    optimizer = OPTIMIZERS[name](model.parameters())
    for _ in range(5):
        model(**batch()).loss.backward()
        optimizer.step()
        locked.apply()
        optimizer.zero_grad()
        assert_zero_bits(model, masks)
    locked.verify(model)
    for key, mask in masks.items():  # everything that was kept did train
        weight = dict(model.named_parameters())["bert." + key].detach()
        assert (weight != before["bert." + key])[torch.from_numpy(mask)].float().mean() > 0.99


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_momentum_from_before_the_lock_revives_nothing(pruned: tuple[Any, Any], name: str) -> None:
    model, masks = pruned
    optimizer = OPTIMIZERS[name](model.parameters())
    model(**batch()).loss.backward()
    optimizer.step()  # unlocked: the optimiser's state now wants to move every weight
    optimizer.zero_grad()
    locked = LockedMasks(masks)
    locked.attach(model)
    for _ in range(3):
        model(**batch()).loss.backward()
        optimizer.step()
        locked.apply()
        assert_zero_bits(model, masks)


def test_masked_gradients_are_not_counted_by_clipping(pruned: tuple[Any, Any]) -> None:
    model, masks = pruned
    model.eval()
    model(**batch()).loss.backward()
    total = 0.0
    for name, parameter in model.named_parameters():
        gradient = parameter.grad.clone()
        mask = masks.get(name.removeprefix("bert."))
        if mask is not None:
            assert gradient[torch.from_numpy(~mask)].abs().sum() > 0  # there is something to mask
            gradient[torch.from_numpy(~mask)] = 0
        total += float((gradient.double() ** 2).sum())
    model.zero_grad()

    locked = LockedMasks(masks)
    locked.attach(model)
    model(**batch()).loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    assert float(norm) == pytest.approx(total**0.5, rel=1e-5)
    for name, mask in masks.items():
        gradient = dict(model.named_parameters())["bert." + name].grad
        assert not gradient[torch.from_numpy(~mask)].any()


def test_gradients_accumulate_masked(pruned: tuple[Any, Any]) -> None:
    model, masks = pruned
    locked = LockedMasks(masks)
    locked.attach(model)
    for _ in range(3):
        model(**batch()).loss.backward()
    for name, mask in masks.items():
        gradient = dict(model.named_parameters())["bert." + name].grad
        assert not gradient[torch.from_numpy(~mask)].any()
        assert gradient[torch.from_numpy(mask)].any()


def test_a_model_that_is_cast_once_it_is_locked(pruned: tuple[Any, Any]) -> None:
    model, masks = pruned
    locked = LockedMasks(masks)
    locked.attach(model)
    for dtype in (torch.bfloat16, torch.float64, torch.float32):
        model.to(dtype)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        model(**batch()).loss.backward()
        optimizer.step()
        locked.apply()
        assert_zero_bits(model, masks)
        optimizer.zero_grad()


def test_detached_masks_let_go(pruned: tuple[Any, Any]) -> None:
    model, masks = pruned
    locked = LockedMasks(masks)
    locked.attach(model)
    locked.detach()
    model(**batch()).loss.backward()
    name, mask = next(iter(masks.items()))
    gradient = dict(model.named_parameters())["bert." + name].grad
    assert gradient[torch.from_numpy(~mask)].any()


def test_negative_zero_counts_as_broken_and_is_mended(pruned: tuple[Any, Any]) -> None:
    model, masks = pruned
    name, mask = next(iter(masks.items()))
    weight = dict(model.named_parameters())["bert." + name]
    row, column = np.argwhere(~mask)[0]
    with torch.no_grad():
        weight[row, column] = -0.0
    locked = LockedMasks(masks)
    with pytest.raises(TrainingError, match=rf"in 1 layers: {name} \(1 of"):
        locked.verify(model)
    locked.attach(model)
    locked.verify(model)
    assert_zero_bits(model, masks)


def test_a_broken_weight_is_named(pruned: tuple[Any, Any]) -> None:
    model, masks = pruned
    name = "encoder.layer.1.output.dense.weight"
    with torch.no_grad():
        dict(model.named_parameters())["bert." + name].fill_(0.5)
    with pytest.raises(TrainingError, match=rf"no longer zero in 1 layers: {name} "):
        LockedMasks(masks).verify(model)


def test_names_match_with_and_without_prefix(tiny_bert: TinyBert) -> None:
    encoder = transformers.AutoModel.from_pretrained(tiny_bert("encoder"))
    name = "encoder.layer.0.output.dense.weight"
    parameter = dict(encoder.named_parameters())[name]
    locked = LockedMasks({name: np.zeros(tuple(parameter.shape), bool)})
    locked.attach(encoder)
    assert not parameter.detach().any()


def test_masks_that_do_not_fit_are_refused(pruned: tuple[Any, Any]) -> None:
    model, _ = pruned
    with pytest.raises(TrainingError, match="mask for 'encoder.layer.9.x', which the model does"):
        LockedMasks({"encoder.layer.9.x": np.ones((2, 2), bool)}).attach(model)
    name = "encoder.layer.0.output.dense.weight"
    with pytest.raises(
        TrainingError, match=rf"mask of '{name}' has shape \[2, 2\], but the weight"
    ):
        LockedMasks({name: np.ones((2, 2), bool)}).attach(model)


def test_saved_masks_come_back(tiny_bert: TinyBert, tmp_path: Path) -> None:
    model, masks = pruned_model(tiny_bert("sequence-classification"))
    model.save_pretrained(tmp_path)
    LockedMasks(masks).save(tmp_path)
    found = read_masks(open_checkpoint(tmp_path))
    assert found.keys() == masks.keys()
    for name, mask in masks.items():
        assert np.array_equal(found[name], mask)


def test_the_callback_works_in_anyones_trainer(tiny_bert: TinyBert, tmp_path: Path) -> None:
    model, masks = pruned_model(tiny_bert("sequence-classification"))
    rows = [{key: value[0] for key, value in batch(1).items()}] * 12
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=6,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=0.01,
        weight_decay=0.1,
        max_grad_norm=0.1,
        save_steps=3,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        dataloader_pin_memory=False,
    )
    trainer = transformers.Trainer(
        model, arguments, train_dataset=rows, callbacks=[LockedMasksCallback(LockedMasks(masks))]
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    assert_zero_bits(model, masks)
    for step in (3, 6):
        found = read_masks(open_checkpoint(tmp_path / f"checkpoint-{step}"))
        assert all(np.array_equal(found[name], mask) for name, mask in masks.items())


def test_without_the_lock_the_zeros_come_back(tiny_bert: TinyBert) -> None:
    """The tests above can fail: an ordinary step revives nearly every zero."""
    model, masks = pruned_model(tiny_bert("sequence-classification"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model(**batch()).loss.backward()
    optimizer.step()
    with pytest.raises(TrainingError, match=f"no longer zero in {len(masks)} layers"):
        LockedMasks(masks).verify(model)


def test_masking_gradients_alone_is_not_enough(pruned: tuple[Any, Any]) -> None:
    """Why weights are set after each step: momentum from before the lock moves them."""
    model, masks = pruned
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(**batch()).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    locked = LockedMasks(masks)
    locked.attach(model)
    model(**batch()).loss.backward()
    optimizer.step()
    with pytest.raises(TrainingError, match="no longer zero"):
        locked.verify(model)
