"""The real optimum, from a Python of its own: it wants a transformers older than ours.

python -m venv ~/optimum
~/optimum/bin/pip install 'optimum-onnx[onnxruntime]' 'optimum-intel[openvino]'
export SPARSEBERT_OPTIMUM_PYTHON=~/optimum/bin/python
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentences import SENTENCES
from sparsebert.checkpoint import open_checkpoint, read_masks
from sparsebert.exporting import export
from sparsebert.exporting.onnx import onnx_constants
from sparsebert.exporting.openvino import openvino_constants
from sparsebert.exporting.verification import count_kept_zeros
from sparsebert.pruning import prune

VARIABLE = "SPARSEBERT_OPTIMUM_PYTHON"
needs_optimum = pytest.mark.skipif(
    VARIABLE not in os.environ,
    reason=f"no optimum: name a Python that has it in {VARIABLE} (see test_optimum.py)",
)
pytestmark = needs_optimum

TinyBert = Callable[..., Path]

CONSTANTS = {
    "onnx": ("model.onnx", onnx_constants),
    "openvino": ("openvino_model.xml", openvino_constants),
}

# Loads each of argv's (package, class, folder) and writes what it answers, by output name.
ANSWERS = """
import importlib, json, sys
from transformers import AutoTokenizer

texts, models = json.load(sys.stdin)
found = []
for package, name, folder, settings in models:
    model = getattr(importlib.import_module(package), name).from_pretrained(folder, **settings)
    encoded = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    found.append({key: value.tolist() for key, value in model(**encoded).items()})
json.dump(found, sys.stdout)
"""


def optimum(*command: str, **options: Any) -> str:
    """Run optimum's Python; its standard output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [os.environ[VARIABLE], *command],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sparse(tiny_bert: TinyBert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sparse") / "model"
    prune(tiny_bert("sequence-classification"), folder)
    return folder


@pytest.mark.parametrize("to", CONSTANTS)
def test_its_own_exports_keep_the_zeros(sparse: Path, tmp_path: Path, to: str) -> None:
    cli = str(Path(os.environ[VARIABLE]).parent / "optimum-cli")
    task = ["--task", "text-classification"]
    optimum(cli, "export", to, "--model", str(sparse), *task, str(tmp_path / "out"))
    checkpoint = open_checkpoint(sparse)
    masks = read_masks(checkpoint)
    pruned = {name: checkpoint.weight(name) for name in masks}
    file, constants = CONSTANTS[to]
    zeros = count_kept_zeros(pruned, constants(tmp_path / "out" / file))
    assert zeros == {name: int((~mask).sum()) for name, mask in masks.items()}


def test_its_classes_load_our_exports(tiny_bert: TinyBert, sparse: Path, tmp_path: Path) -> None:
    import torch
    import transformers

    prune(tiny_bert("question-answering"), tmp_path / "spans")
    sources = {"SequenceClassification": sparse, "QuestionAnswering": tmp_path / "spans"}
    precise = {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}
    models, expected = [], []
    texts = list(SENTENCES[:3])
    for name, source in sources.items():
        network = getattr(transformers, f"AutoModelFor{name}").from_pretrained(source)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        for to, package, begins, settings in (
            ("onnx", "optimum.onnxruntime", "ORTModelFor", {}),
            ("openvino", "optimum.intel", "OVModelFor", precise),
        ):
            out = tmp_path / f"{name}-{to}"
            export(source, out, to=to)
            models.append([package, begins + name, str(out), settings])
            encoded = tokenizer(texts, padding=True, return_tensors="pt")
            with torch.inference_mode():
                expected.append((network(**encoded), encoded["attention_mask"].bool()))
    answers = json.loads(optimum("-c", ANSWERS, input=json.dumps([texts, models])))
    for found, (wanted, mask) in zip(answers, expected):
        assert set(found) == set(wanted)
        for key, values in wanted.items():
            difference = np.abs(np.array(found[key], np.float32) - values.numpy())
            if key != "logits":  # a place of padding has a logit too, and nobody reads it
                difference = difference[mask.numpy()]
            assert difference.max() < 1e-5
