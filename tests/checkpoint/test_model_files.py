"""A model's fingerprint changes with every file that its answers depend on, and with no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bert_folders import write_bert
from sparsebert.checkpoint.model_files import model_fingerprint

OF_ANSWERS = [
    "0_Transformer/config.json",
    "0_Transformer/model.safetensors",
    "0_Transformer/model.safetensors.index.json",
    "0_Transformer/spm.model",
    "0_Transformer/vocab.txt",
    "1_Pooling/config.json",
    "2_Dense/model.safetensors",
    "artifact.metadata",
    "config_sentence_transformers.json",
    "masks.safetensors",
    "router_config.json",
    "sparse_linear.safetensors",
]
OTHERS = [
    ".hidden.json",
    "LICENSE",
    "README.md",
    "checksums.json",
    "evaluation.json",
    "recipe.yaml",
]
OTHERS += ["notes/diary.txt", "onnx/model.safetensors", "pytorch_model.bin"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    write_bert(folder / "0_Transformer")
    modules = [
        {"path": path, "type": f"sentence_transformers.models.{path[2:]}"}
        for path in ("0_Transformer", "1_Pooling", "2_Dense")
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    for path in (folder / name for name in (*OF_ANSWERS, *OTHERS)):
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_text("{}")
    return folder


@pytest.mark.parametrize("name", [*OF_ANSWERS, *OTHERS])
def test_the_fingerprint_is_of_what_answers_depend_on(model: Path, name: str) -> None:
    before = model_fingerprint(model)
    assert model_fingerprint(model) == before
    content = bytearray((model / name).read_bytes())
    content[-1] ^= 1
    (model / name).write_bytes(content)
    assert (model_fingerprint(model) != before) == (name in OF_ANSWERS)


def test_a_file_that_moved_is_another_model(model: Path) -> None:
    before = model_fingerprint(model)
    (model / "router_config.json").rename(model / "1_Pooling" / "router_config.json")
    assert model_fingerprint(model) != before
