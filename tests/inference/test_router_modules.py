"""A Router of sentence-transformers: texts without a task take its default route."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentences import SENTENCES
from sparsebert import load, pack, prune
from sparsebert.errors import CheckpointError

theirs = pytest.importorskip("sentence_transformers")
torch = pytest.importorskip("torch")

TEXTS = [*SENTENCES[:6], "a"]


def inference_free(folder: Path, base: Path, default: str) -> Any:
    """A SPLADE model whose queries are looked up in a table (opensearch-neural-sparse)."""
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    torch.manual_seed(3)
    encoder = Transformer(str(base), transformer_task="fill-mask")
    size = len(encoder.tokenizer)
    static = SparseStaticEmbedding(encoder.tokenizer, weight=torch.rand(size))
    routes = {"query": [static], "document": [encoder, SpladePooling("max")]}
    router = Router(routes, default_route=default)
    theirs.SparseEncoder(modules=[router], device="cpu").save(str(folder))
    return theirs.SparseEncoder(str(folder), device="cpu")


def test_sparse_documents(tiny_bert: Any, tmp_path: Path) -> None:
    base = tiny_bert("masked-lm")
    expected = inference_free(tmp_path / "st", base, "document").encode_document(TEXTS)
    for each, row in zip(load(tmp_path / "st").embed_sparse(TEXTS), expected, strict=True):
        weights = row.to_dense().numpy()
        assert each.indices.tolist() == np.flatnonzero(weights).tolist()
        assert np.abs(each.values - weights[each.indices]).max() < 2e-5
    # Every step keeps both routes.
    prune(tmp_path / "st", tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "packed", dtype="fp32")
    again = theirs.SparseEncoder(str(tmp_path / "sparse"), device="cpu")
    halved = load(tmp_path / "packed").embed_sparse(TEXTS)
    for each, row in zip(halved, again.encode_document(TEXTS), strict=True):
        assert np.abs(each.values - row.to_dense().numpy()[each.indices]).max() < 2e-5
    dense = theirs.SparseEncoder(str(tmp_path / "st"), device="cpu")
    queries = [model.encode_query(TEXTS).to_dense() for model in (again, dense)]
    assert torch.equal(*queries)


def test_a_default_route_without_a_transformer(tiny_bert: Any, tmp_path: Path) -> None:
    inference_free(tmp_path / "st", tiny_bert("masked-lm"), "query")
    model = load(tmp_path / "st")  # whose encoder can be pruned all the same
    for embed in (model.embed_sparse, model.embed):
        with pytest.raises(CheckpointError, match="by the route 'query', which has no transformer"):
            embed("a")


def test_dense_routes(tiny_bert: Any, tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Dense, Router, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(3)
    encoder, pooling = Transformer(str(tiny_bert())), Pooling(32, "mean")
    routes = {name: [encoder, pooling, Dense(32, 16)] for name in ("query", "document")}
    model = theirs.SentenceTransformer(modules=[Router(routes, "document")], device="cpu")
    model.save(str(tmp_path / "st"))
    expected = model.encode(TEXTS)
    assert np.abs(load(tmp_path / "st").embed(TEXTS) - expected).max() < 2e-5
    file = tmp_path / "st" / "router_config.json"
    known = json.loads(file.read_text())
    two = {**known["types"], "other": next(iter(known["types"].values()))}
    structure = {**known["structure"], "query": ["other"]}
    for change, complaint in (
        ({"types": []}, "must have 'types' and the 'structure'"),
        ({"structure": {"query": ["none"]}}, "route 'query' has a module without a type"),
        ({"parameters": ["document"]}, "'parameters' must be an object"),
        ({"parameters": {"other": 1}}, "other is set"),
        ({"parameters": {"default_route": "x"}}, "default_route 'x' is none of its routes"),
        ({"parameters": {"route_mappings": {"a": "query"}}}, "by task only"),
        ({"types": two, "structure": structure}, "has 2 transformers"),
    ):
        file.write_text(json.dumps({**known, **change}))
        with pytest.raises(CheckpointError, match=complaint):
            load(tmp_path / "st")
