"""Packed folders of every family: what comes out is what went in, and answers stay near."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from family_configs import IN_TRANSFORMERS
from sparsebert import load, pack, prune, unpack
from sparsebert.checkpoint import open_checkpoint
from sparsebert.checkpoint.families import FAMILIES
from sparsebert.errors import CheckpointError

SIZES = {"hidden_size": 56, "num_attention_heads": 4, "intermediate_size": 36}
OTHERS = [name for name in IN_TRANSFORMERS if name != "bert"]
CHANGES = {"electra": {"embedding_size": 20}, "modernbert": {"local_attention": 8}}


@pytest.mark.parametrize("head", ["sequence-classification", "masked-lm"])
@pytest.mark.parametrize("family", OTHERS)
def test_there_and_back(tiny_bert, tmp_path: Path, family: str, head: str) -> None:
    dense = tiny_bert(head, model_type=family, **SIZES, **CHANGES.get(family, {}))
    prune(dense, tmp_path / "sparse")
    for source in (dense, tmp_path / "sparse"):
        packed, back = tmp_path / f"{source.name} packed", tmp_path / f"{source.name} back"
        pack(source, packed)
        unpack(packed, back)
        before = open_checkpoint(source).tensors
        after = load_file(back / "model.safetensors")
        assert before.keys() == after.keys()
        for name, value in before.items():
            np.testing.assert_array_equal(after[name], value)
    assert (tmp_path / "sparse back" / "masks.safetensors").is_file()
    record = json.loads((tmp_path / "sparse back" / "config.json").read_text())["sparsity"]
    assert record["pattern"] == "1:2"
    layers = {"modernbert": 8, "nomic_bert": 14, "gte": 14, "albert": 6}  # one that two share
    assert len(record["layers"]) == layers.get(family, 12)


@pytest.mark.parametrize("family", OTHERS)
def test_int8_is_near(tiny_bert, tmp_path: Path, family: str) -> None:
    dense = tiny_bert(model_type=family, **SIZES, **CHANGES.get(family, {}))
    prune(dense, tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "int8", dtype="int8")
    texts = ["the ferry crossed the bay", "two hours later"]
    exact, found = load(tmp_path / "sparse").embed(texts), load(tmp_path / "int8").embed(texts)
    assert 0 < np.linalg.norm(found - exact) < 0.05 * np.linalg.norm(exact)


@pytest.mark.parametrize("family", OTHERS)
def test_a_missing_tensor_is_named_as_the_file_spells_it(
    tiny_bert, tmp_path: Path, family: str
) -> None:
    from safetensors.numpy import save_file

    source = tiny_bert(model_type=family, **SIZES, **CHANGES.get(family, {}))
    tensors = dict(open_checkpoint(source).tensors)
    last = 0 if FAMILIES[family].shared_layers else 1
    layer = FAMILIES[family].spelled(f"encoder.layer.{last}.attention.output.dense.weight")
    del tensors[layer]
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"lacks tensors of .*: {layer}"):
        load(tmp_path)
