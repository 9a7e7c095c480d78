"""Sparse embeddings: those of sentence-transformers' SparseEncoder, from our engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentence_folders import write_modules
from sentences import SENTENCES, long_text
from sparsebert import finetune, load, pack, prune
from sparsebert.errors import CheckpointError, InputError, TrainingError
from sparsebert.training import prune_upstream

theirs = pytest.importorskip("sentence_transformers")

TEXTS = [*SENTENCES[:9], "a"]


def saved(folder: Path, base: Path, **pooling: Any) -> Any:
    from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling

    most = pooling.pop("most", None)
    modules = [MLMTransformer(str(base)), SpladePooling(**pooling)]
    model = theirs.SparseEncoder(modules=modules, device="cpu", max_active_dims=most)
    model.save(str(folder))
    return model


def dense(embeddings: Any, width: int) -> np.ndarray:
    rows = np.zeros((len(embeddings), width), np.float32)
    for row, each in zip(rows, embeddings, strict=True):
        assert (np.diff(each.indices) > 0).all()
        assert (each.values > 0).all()
        row[each.indices] = each.values
    return rows


@pytest.mark.parametrize(
    "pooling",
    [
        {},
        {"pooling_strategy": "sum"},
        {"activation_function": "log1p_relu"},
        {"pooling_strategy": "sum", "activation_function": "log1p_relu"},
        {"most": 5},
    ],
    ids=str,
)
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_embeddings(tiny_bert, tmp_path: Path, family: str, pooling: dict[str, str]) -> None:
    base = tiny_bert("masked-lm", model_type=family)
    expected = saved(tmp_path / "st", base, **pooling).encode(TEXTS).to_dense().numpy()
    model = load(tmp_path / "st")
    found = model.embed_sparse(TEXTS, batch_size=3)
    assert np.abs(dense(found, expected.shape[1]) - expected).max() < 2e-5
    alone = model.embed_sparse(TEXTS[0])
    assert alone.as_dict() == pytest.approx(found[0].as_dict(), abs=1e-5)
    assert model.embed_sparse([]) == []
    with pytest.raises(CheckpointError, match="makes sparse embeddings.*use embed_sparse"):
        model.embed(TEXTS)
    prune(tmp_path / "st", tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "packed", dtype="fp32")
    again = theirs.SparseEncoder(str(tmp_path / "sparse"), device="cpu").encode(TEXTS)
    halved = load(tmp_path / "packed").embed_sparse(TEXTS)
    assert np.abs(dense(halved, expected.shape[1]) - again.to_dense().numpy()).max() < 2e-5


def test_many_tokens_and_no_modules(tiny_bert) -> None:
    """More tokens than logits are held of at a time, and the usual pooling."""
    model = load(tiny_bert("masked-lm"), threads=1)
    texts = [long_text(12), *TEXTS] * 30
    found = model.embed_sparse(texts, batch_size=1000)
    for text, each in list(zip(texts, found, strict=True))[::37]:
        logits = model.logits(text)
        weights = np.log1p(np.maximum(logits, 0)).max(axis=0)
        assert dense([each], len(weights))[0] == pytest.approx(weights, abs=1e-5)


def test_refusals(tiny_bert, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is an encoder without a head and cannot embed_sparse"):
        load(tiny_bert()).embed_sparse("a")
    saved(tmp_path / "st", tiny_bert("masked-lm"))
    file = tmp_path / "st" / "1_SpladePooling" / "config.json"
    for change, complaint in (
        ({"pooling_strategy": "mean"}, "'mean' is not supported; use one of max, sum"),
        ({"activation_function": "gelu"}, "'gelu' is not supported; use one of relu, log1p_relu"),
        ({"other": 1}, "other is set"),
    ):
        settings = json.loads(file.read_text())
        file.write_text(json.dumps({**settings, **change}))
        with pytest.raises(CheckpointError, match=complaint):
            load(tmp_path / "st")
        file.write_text(json.dumps(settings))


def test_the_server_gives_the_same(tiny_bert) -> None:
    for library in ("fastapi", "uvicorn", "orjson", "httpx"):
        pytest.importorskip(library)
    import httpx

    from served import serving
    from sparsebert.serving import load_models

    folders = [f"sparse={tiny_bert('masked-lm')}", f"dense={tiny_bert()}"]
    expected = load(tiny_bert("masked-lm")).embed_sparse(TEXTS)
    with serving(load_models(folders, threads=1)) as url, httpx.Client(base_url=url) as client:
        response = client.post("/embed_sparse", json={"inputs": TEXTS})
        assert response.status_code == 200, response.text
        for each, wanted in zip(response.json(), expected, strict=True):
            found = {pair["index"]: pair["value"] for pair in each}
            assert found == pytest.approx(wanted.as_dict(), abs=1e-5)
        response = client.post("/embed_sparse", json={"inputs": "a", "model": "dense"})
        assert response.status_code == 424


def test_no_training_makes_it_another_model(tiny_bert, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("pyarrow")
    saved(tmp_path / "st", tiny_bert("masked-lm"))
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(SENTENCES))
    out = tmp_path / "out"
    with pytest.raises(TrainingError, match="sparse embeddings .* but not fine-tune"):
        finetune(tmp_path / "st", out, task="pairs", data=texts)
    with pytest.raises(TrainingError, match="set masked_lm_weight to 0"):
        prune_upstream(tmp_path / "st", out, corpus=texts, max_length=16)


def test_unsupported_modules_are_not_taken_for_sparse_ones(tiny_bert, tmp_path: Path, run) -> None:
    folder = shutil.copytree(tiny_bert("masked-lm"), tmp_path / "model")
    write_modules(folder, "Transformer", "LSTM")
    assert load(folder, threads=1).embedding_kind == "dense"
    (tmp_path / "texts.txt").write_text("a small film\n")
    code, out, error = run("embed", folder, "-i", tmp_path / "texts.txt")
    assert (code, out) == (1, "")
    assert "LSTM" in error
