"""BGE-M3's dense, sparse and multi-vector embeddings of one pass.

The reference is its authors' code as formulas (FlagEmbedding's M3): no package of it is needed.
"""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentence_folders import with_modules
from sentences import SENTENCES
from sparsebert import convert, finetune, load, pack, prune, unpack
from sparsebert.errors import CheckpointError, InputError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = [*SENTENCES[:8], "a a a", "\u2603"]


@pytest.fixture(scope="module")
def bge(tiny_bert: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in with the files of the model as it is published: pickles all."""
    folder = tmp_path_factory.mktemp("bge") / "m3"
    with_modules(tiny_bert(model_type="xlm-roberta"), folder, mode="cls", normalize=True)
    model = transformers.AutoModel.from_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    torch.manual_seed(4)
    torch.save(torch.nn.Linear(32, 32).state_dict(), folder / "colbert_linear.pt")
    torch.save(torch.nn.Linear(32, 1).state_dict(), folder / "sparse_linear.pt")
    return folder


@pytest.fixture(scope="module")
def converted(bge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bge") / "converted"
    convert(bge, out)
    return out


def reference(encoder: Path, heads: Path, text: str) -> tuple[Any, dict[int, float], Any]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    model = transformers.AutoModel.from_pretrained(encoder).eval()
    sparse = torch.load(heads / "sparse_linear.pt", weights_only=True)
    colbert = torch.load(heads / "colbert_linear.pt", weights_only=True)
    inputs = tokenizer(text, return_tensors="pt")
    with torch.inference_mode():
        states = model(**inputs).last_hidden_state[0]
        weights = torch.relu(states @ sparse["weight"].T + sparse["bias"])[:, 0].tolist()
        vectors = states[1:] @ colbert["weight"].T + colbert["bias"]
    unused = {
        tokenizer.cls_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
        tokenizer.unk_token_id,
    }
    lexical: dict[int, float] = {}
    for weight, token in zip(weights, inputs["input_ids"][0].tolist(), strict=True):
        if token not in unused and weight > lexical.get(token, 0):
            lexical[token] = weight
    normalize = torch.nn.functional.normalize
    return normalize(states[0], dim=0).numpy(), lexical, normalize(vectors, dim=-1).numpy()


def agrees(model: Any, encoder: Path, heads: Path) -> None:
    found = model.embed_hybrid(TEXTS, batch_size=3)
    for text, each in zip(TEXTS, found, strict=True):
        dense, lexical, vectors = reference(encoder, heads, text)
        assert np.abs(each.dense - dense).max() < 2e-5
        assert each.sparse.as_dict() == pytest.approx(lexical, abs=2e-5)
        assert each.tokens.shape == vectors.shape
        assert np.abs(each.tokens - vectors).max() < 2e-5


def test_every_step_keeps_the_heads(bge: Path, converted: Path, tmp_path: Path) -> None:
    model = load(converted)
    agrees(model, converted, bge)
    assert not list(converted.glob("*.pt"))
    for text, each in zip(TEXTS, model.embed_hybrid(TEXTS), strict=True):
        assert np.abs(each.dense - model.embed(text)).max() < 1e-5
        assert each.sparse.as_dict() == pytest.approx(model.embed_sparse(text).as_dict(), abs=1e-5)
        assert np.abs(each.tokens - model.embed_tokens(text, task="query")).max() < 1e-5
    assert model.embed_hybrid(TEXTS[0]).tokens.shape[1] == 32
    assert model.embed_hybrid([]) == []
    prune(converted, tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "packed", dtype="fp32")
    unpack(tmp_path / "packed", tmp_path / "unpacked")
    for folder in ("packed", "unpacked"):
        agrees(load(tmp_path / folder), tmp_path / "sparse", bge)
    again = tmp_path / "again"
    load(tmp_path / "packed").save_pretrained(again)
    agrees(load(again), tmp_path / "sparse", bge)


@pytest.mark.thorough
def test_heads_do_not_outlive_a_fine_tuning(converted: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("pyarrow")
    rows = [
        json.dumps({"sentence1": a, "sentence2": b, "score": len(a) % 5 / 4})
        for a, b in pairwise(SENTENCES)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    out = tmp_path / "out"
    options: Any = {"task": "pairs", "data": tmp_path / "rows.jsonl", "epochs": 1, "max_length": 24}
    found = finetune(converted, out, **options)
    assert any("heads were left out" in note for note in found.notes)
    assert not list(out.glob("*_linear*"))
    with pytest.raises(InputError):
        load(out).embed_sparse("a")


def test_rerank_is_the_mean_of_the_largest_products(converted: Path) -> None:
    model = load(converted)
    query, documents = TEXTS[0], TEXTS[1:6]
    asked = model.embed_tokens(query, task="query")
    for each in model.rerank(query, documents):
        vectors = model.embed_tokens(documents[each["index"]])
        assert each["score"] == pytest.approx((asked @ vectors.T).max(1).mean(), abs=1e-5)


def test_pickles_are_opened_by_convert_alone(bge: Path, converted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m3"
    convert(bge, folder)
    for name in ("colbert_linear", "sparse_linear"):
        (folder / f"{name}.safetensors").unlink()
        (folder / f"{name}.pt").write_bytes((bge / f"{name}.pt").read_bytes())
    with pytest.raises(CheckpointError, match=r"sparse_linear\.pt: run `sparsebert convert"):
        prune(folder, tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"sparse_linear\.pt: run `sparsebert convert"):
        load(folder).embed_hybrid("a")
    convert(folder, tmp_path / "whole")
    agrees(load(tmp_path / "whole"), converted, bge)
    torch.save(torch.nn.Linear(32, 2).state_dict(), folder / "sparse_linear.pt")
    convert(folder, tmp_path / "wide")
    with pytest.raises(CheckpointError, match=r"'weight' is F32 \[2, 32\], but"):
        load(tmp_path / "wide").embed_sparse("a")
    torch.save({"weight": [1]}, folder / "sparse_linear.pt")
    with pytest.raises(CheckpointError, match="entry 'weight' is not a tensor"):
        convert(folder, tmp_path / "bad")
    (folder / "sparse_linear.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(CheckpointError, match="refused by torch's weights-only loader"):
        convert(folder, tmp_path / "bad")


def test_modules_we_do_not_compute_are_not_taken_for_none(converted: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(converted, tmp_path / "m3")
    listed = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([*listed, {"path": "", "type": "own.Whiten"}]))
    model = load(folder)
    for embed in (model.embed, model.embed_hybrid):
        with pytest.raises(CheckpointError, match="asks for a 'own.Whiten' module"):
            embed("a")
    assert model.embed_sparse("a").as_dict() == load(converted).embed_sparse("a").as_dict()


def test_old_modules_are_converted_too(tiny_bert: Any, tmp_path: Path) -> None:
    folder = with_modules(tiny_bert(), tmp_path / "old", mode="mean", normalize=False)
    listed = json.loads((folder / "modules.json").read_text())
    kind = "sentence_transformers.models.Dense"
    listed.append({"idx": 2, "name": "2", "path": "2_Dense", "type": kind})
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "2_Dense").mkdir()
    settings = {"in_features": 32, "out_features": 8, "bias": True}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(settings))
    layer = torch.nn.Linear(32, 8)
    state = {f"linear.{name}": value for name, value in layer.state_dict().items()}
    torch.save(state, folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="or run `sparsebert convert`"):
        load(folder).embed("a")
    convert(folder, tmp_path / "converted")
    mean = load(tiny_bert()).embed(TEXTS, pooling="mean")
    with torch.inference_mode():
        expected = torch.tanh(layer(torch.tensor(mean))).numpy()
    assert np.abs(load(tmp_path / "converted").embed(TEXTS) - expected).max() < 2e-5


def test_other_models_say_what_they_lack(tiny_bert: Any) -> None:
    with pytest.raises(
        InputError, match="cannot embed_hybrid: it lacks a head .* such as BGE-M3 has"
    ):
        load(tiny_bert()).embed_hybrid("a")


def test_the_server_gives_the_same(converted: Path, tiny_bert: Any) -> None:
    for library in ("fastapi", "uvicorn", "orjson", "httpx"):
        pytest.importorskip(library)
    import httpx

    from served import serving
    from sparsebert.serving import load_models

    expected = load(converted).embed_hybrid(TEXTS)
    served = serving(load_models([f"m3={converted}", f"dense={tiny_bert()}"], threads=1))
    with served as url, httpx.Client(base_url=url) as client:

        def asked(route: str) -> Any:
            response = client.post(route, json={"inputs": TEXTS})
            assert response.status_code == 200, response.text
            return zip(response.json(), expected, strict=True)

        for dense, wanted in asked("/embed"):
            assert dense == pytest.approx(wanted.dense, abs=1e-5)
        for sparse, wanted in asked("/embed_sparse"):
            weights = {pair["index"]: pair["value"] for pair in sparse}
            assert weights == pytest.approx(wanted.sparse.as_dict(), abs=1e-5)
        for vectors, wanted in asked("/embed_all"):
            assert np.asarray(vectors) == pytest.approx(wanted.tokens, abs=1e-5)
        for hybrid, wanted in asked("/embed_hybrid"):
            assert hybrid["dense"] == pytest.approx(wanted.dense, abs=1e-5)
            weights = {pair["index"]: pair["value"] for pair in hybrid["sparse"]}
            assert weights == pytest.approx(wanted.sparse.as_dict(), abs=1e-5)
            assert np.asarray(hybrid["tokens"]) == pytest.approx(wanted.tokens, abs=1e-5)
        assert "/embed_hybrid" in client.get("/info").json()["models"][0]["routes"]
        refused = client.post("/embed_hybrid", json={"inputs": "a", "model": "dense"})
        assert refused.status_code == 424
        assert "dense lacks a head for sparse" in refused.json()["error"]
