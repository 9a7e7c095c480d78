"""Weights so large that sums overflow: an error everywhere, and no answer that is no number."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import sparsebert
from sparsebert.errors import CheckpointError
from sparsebert.packing import pack

NOT_FINITE = "not finite"


@pytest.fixture(scope="module")
def overflowing(tiny_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every weight is finite, no answer is."""
    folder = tmp_path_factory.mktemp("overflowing") / "model"
    shutil.copytree(tiny_bert("sequence-classification"), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["bert.encoder.layer.1.output.LayerNorm.weight"][:] = 3e38
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_python(overflowing: Path) -> None:
    model = sparsebert.load(overflowing, threads=1)
    for ask in (model.embed, model.classify):
        with pytest.raises(CheckpointError, match=NOT_FINITE):
            ask(["a small film"])


@pytest.mark.parametrize("command", ["embed", "classify"])
def test_command_line(overflowing: Path, tmp_path: Path, run: Any, command: str) -> None:
    (tmp_path / "texts.txt").write_text("a small film\n")
    code, out, error = run(command, overflowing, "-i", tmp_path / "texts.txt")
    assert code == 1
    assert out == ""
    assert NOT_FINITE in error
    assert "Traceback" not in error


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_nothing_is_packed_that_answers_so(overflowing: Path, tmp_path: Path, dtype: str) -> None:
    with pytest.raises(CheckpointError, match=NOT_FINITE):
        pack(overflowing, tmp_path / "packed", dtype=dtype)
    assert not (tmp_path / "packed").exists()


def test_one_damaged_word(tiny_bert: Callable[..., Path], tmp_path: Path) -> None:
    """One damaged row of a table, of a word that few texts have."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert(), folder)
    expected = sparsebert.load(folder, threads=1).forward([[5, 6]])[0]
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][9] = 3e38
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model = sparsebert.load(folder, threads=1)
    with pytest.raises(CheckpointError, match=NOT_FINITE):
        model.forward([[5, 9], [5, 6]])
    assert np.array_equal(model.forward([[5, 6]])[0], expected)


def test_one_token_under_max_pooling(tiny_bert: Callable[..., Path], tmp_path: Path) -> None:
    """The last layer overflows for tokens that one neuron answers to: half of them, by chance."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert(), folder)
    tensors = load_file(folder / "model.safetensors")
    wide = tensors["encoder.layer.1.intermediate.dense.weight"]
    wide[0] = 1e20 * np.random.default_rng(3).normal(size=wide.shape[1])
    tensors["encoder.layer.1.output.dense.weight"][:, 0] = 1e30
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    encoder = sparsebert.load(folder, threads=1)._encoder
    types = np.zeros(7, np.int32)
    for rotation in range(7):  # so that tokens that overflow stand at every place
        ids = np.roll(np.array([5, 9, 8, 7, 6, 11, 13], np.int32), rotation)
        with pytest.raises(CheckpointError, match=NOT_FINITE):
            encoder.pooled(ids, types, np.array([0, 7], np.int32), "max", False)


def test_server(overflowing: Path) -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("fastapi")
    from served import serving
    from sparsebert.serving import load_models

    with (
        serving(load_models([overflowing], threads=1)) as url,
        httpx.Client(base_url=url) as client,
    ):
        for route in ("/embed", "/predict"):
            response = client.post(route, json={"inputs": "a small film"})
            assert response.status_code == 424
            assert NOT_FINITE in response.json()["error"]
