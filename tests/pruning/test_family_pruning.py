"""Pruning every family of encoders: whole patterns, folders that transformers loads, same zeros."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.numpy import load_file

from family_configs import DISTINCT
from sentences import SENTENCES
from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.checkpoint.architecture import POOLER, layer_linears
from sparsebert.checkpoint.families import Head
from sparsebert.pruning import prune
from sparsebert.pruning.inspection import inspect
from tiny_models import TinyBert

TEXTS = [text for text in SENTENCES if len(text.split()) < 12][:24]
ODD = {"hidden_size": 36, "num_attention_heads": 3, "intermediate_size": 52}


CASES = [
    *((model_type, "second-order") for model_type in DISTINCT),
    *((model_type, "wanda") for model_type in ("mpnet", "modernbert")),
    *((model_type, "magnitude") for model_type in ("distilbert", "modernbert")),
]


@pytest.mark.parametrize(("model_type", "method"), CASES)
def test_every_layer_becomes_whole_and_transformers_loads_the_folder(
    tiny_bert: TinyBert, tmp_path: Path, model_type: str, method: str
) -> None:
    head = "sequence-classification"
    folder = tiny_bert(head, model_type=model_type, **ODD)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS), encoding="utf-8")
    calibration: dict[str, Any] = {} if method == "magnitude" else {"calibration": texts}
    sparse = tmp_path / "sparse"
    result = prune(folder, sparse, method=method, parts=("encoder", "head"), **calibration)
    checkpoint = open_checkpoint(sparse)
    family = checkpoint.config.family
    stored = checkpoint.config.stored_layers
    assert len(result.pruned) == stored * len(layer_linears(checkpoint.config)) + (
        # A pooler of the encoder's is no part of the head.
        1 if family.pooler and family.heads[Head.SEQUENCE].dense == POOLER else 2
    )
    found = inspect(sparse)
    assert found.whole
    masks = read_masks(checkpoint)
    assert sorted(masks) == sorted(result.pruned)
    before = open_checkpoint(folder).tensors
    after = load_file(sparse / "model.safetensors")
    assert before.keys() == after.keys()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(sparse)
    loaded = {family.canonical(name): weight for name, weight in model.named_parameters()}
    for name, mask in masks.items():
        assert set(mask.reshape(-1, 2).sum(1).tolist()) == {1}, name
        weight = loaded[name].detach().numpy()
        assert not weight[~mask].view(np.int32).any(), name
        stored = checkpoint.stored_name[name]
        assert np.array_equal(weight, after[stored]), name
        if method != "second-order":
            assert np.array_equal(weight[mask], before[stored][mask]), name
    # Another tool saves the folder again: the zeros are stored as zeros.
    model.save_pretrained(tmp_path / "again")
    again = open_checkpoint(tmp_path / "again").tensors
    assert all(np.array_equal(again[name], values) for name, values in after.items())


@pytest.mark.parametrize("model_type", ["roberta", "electra", "mpnet", "modernbert"])
def test_second_order_changes_hidden_states_least(
    tiny_bert: TinyBert, tmp_path: Path, model_type: str
) -> None:
    folder = tiny_bert("encoder", model_type=model_type)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(SENTENCES), encoding="utf-8")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(SENTENCES[:40], padding=True, truncation=True, return_tensors="pt")
    real = batch["attention_mask"].bool()

    def states(path: Path) -> Any:
        model = transformers.AutoModel.from_pretrained(path).eval()
        with torch.inference_mode():
            return model(**batch).last_hidden_state[real]

    dense, away = states(folder), {}
    for method in ("magnitude", "wanda", "second-order"):
        given: dict[str, Any] = {} if method == "magnitude" else {"calibration": texts}
        prune(folder, tmp_path / method, method=method, **given)
        away[method] = (states(tmp_path / method) - dense).square().mean().item()
    assert away["second-order"] < 0.7 * min(away["wanda"], away["magnitude"])
