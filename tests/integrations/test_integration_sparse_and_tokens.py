"""SparseEncoder and MultiVectorEncoder on our engine give what they give on the torch model.

Halved stand-ins of SPLADE and ColBERT, packed, beside the same weights unpacked.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedding_folders import inference_free, original_colbert
from sentences import SENTENCES, long_text
from sparsebert import load, pack, prune, unpack
from sparsebert.errors import InputError

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("sentence_transformers")

from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sparse_encoder.modules import SpladePooling

from sparsebert.integrations.sentence_transformers import MultiVectorEncoder, SparseEncoder
from sparsebert.integrations.transformers import SparsebertModel

TEXTS = [*SENTENCES[:7], long_text(30), "a"]
TOLERANCE = 2e-5


def halved(dense: Path) -> tuple[Path, Path]:
    """The folder pruned and packed in fp32, and unpacked again."""
    names = ("sparse", "packed", "unpacked")
    sparse, packed, unpacked = (dense.with_name(name) for name in names)
    prune(dense, sparse)
    pack(sparse, packed, dtype="fp32")
    unpack(packed, unpacked)
    return packed, unpacked


def difference(ours: Any, others: Any) -> float:
    return float((ours.to_dense() - others.to_dense()).abs().max())


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")  # torch's own
def test_splade(tiny_bert: Any, tmp_path: Path) -> None:
    folder = tmp_path / "dense"
    transformer = Transformer(str(tiny_bert("masked-lm")), transformer_task="fill-mask")
    modules = [transformer, SpladePooling("max")]
    prompts = {"query": "question: ", "document": "text: "}
    dense = theirs.SparseEncoder(modules=modules, prompts=prompts, max_active_dims=20, device="cpu")
    dense.save(str(folder))
    packed, unpacked = halved(folder)
    ours = SparseEncoder(packed, threads=2)
    others = theirs.SparseEncoder(str(unpacked), device="cpu")
    assert difference(ours.encode(TEXTS), others.encode(TEXTS)) < TOLERANCE
    found = [ours.encode_query(TEXTS[:2]), ours.encode_document(TEXTS[2:])]
    expected = [others.encode_query(TEXTS[:2]), others.encode_document(TEXTS[2:])]
    scores = ours.similarity(*found).numpy(), others.similarity(*expected).numpy()
    assert np.abs(scores[0] - scores[1]).max() < 1e-3
    for one, other in zip(found, expected, strict=True):
        assert difference(one, other) < TOLERANCE
        assert ours.sparsity(one) == others.sparsity(other)
    # The classes of sentence-transformers and our own model agree.
    for each, row in zip(load(packed).embed_sparse(TEXTS), ours.encode(TEXTS), strict=True):
        weights = row.to_dense().numpy()
        assert each.indices.tolist() == np.flatnonzero(weights).tolist()
        assert np.abs(each.values - weights[each.indices]).max() < TOLERANCE
    # What is saved names no class of ours.
    ours.save(str(tmp_path / "saved"))
    assert "sparsebert" not in (tmp_path / "saved" / "modules.json").read_text()
    again = SparseEncoder(tmp_path / "saved", threads=1)
    assert difference(again.encode(TEXTS), ours.encode(TEXTS)) < TOLERANCE


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")  # torch's own
def test_splade_whose_queries_are_looked_up(tiny_bert: Any, tmp_path: Path) -> None:
    packed, unpacked = halved(inference_free(tmp_path / "dense", tiny_bert("masked-lm")))
    others = theirs.SparseEncoder(str(unpacked), device="cpu")
    ours = SparseEncoder(packed, threads=2)
    ours.save(str(tmp_path / "saved"))
    names = ("modules.json", "router_config.json")
    assert not any("sparsebert" in (tmp_path / "saved" / name).read_text() for name in names)
    for model in (ours, SparseEncoder(tmp_path / "saved", threads=1)):
        for encode in ("encode", "encode_query", "encode_document"):
            found, expected = getattr(model, encode)(TEXTS), getattr(others, encode)(TEXTS)
            assert difference(found, expected) < TOLERANCE
    again = load(tmp_path / "saved").embed_sparse(TEXTS, task="document")
    for each, other in zip(again, load(packed).embed_sparse(TEXTS, task="document"), strict=True):
        assert np.array_equal(each.values, other.values)


def test_splade_of_old_and_without_modules(tiny_bert: Any, tmp_path: Path) -> None:
    """Modules as they were called before version 5.4; a plain masked-LM folder."""
    modules = [
        Transformer(str(tiny_bert("masked-lm")), transformer_task="fill-mask"),
        SpladePooling("max"),
    ]
    theirs.SparseEncoder(modules=modules, device="cpu").save(str(tmp_path / "old"))
    listed = json.loads((tmp_path / "old" / "modules.json").read_text())
    listed[0]["type"] = "sentence_transformers.sparse_encoder.models.MLMTransformer"
    (tmp_path / "old" / "modules.json").write_text(json.dumps(listed))
    settings = json.loads((tmp_path / "old" / "sentence_bert_config.json").read_text())
    kept = {key: value for key, value in settings.items() if key == "max_seq_length"}
    (tmp_path / "old" / "sentence_bert_config.json").write_text(json.dumps(kept))
    expected = theirs.SparseEncoder(str(tmp_path / "old"), device="cpu").encode(TEXTS)
    for folder in (tmp_path / "old", tiny_bert("masked-lm")):
        assert difference(SparseEncoder(folder, threads=1).encode(TEXTS), expected) < TOLERANCE


EXPANDED = {"strategy": "fixed", "length": 24}


@pytest.mark.parametrize(
    "settings",
    [
        {"query_expansion": EXPANDED, "document_length": 20},
        {"query_expansion": {**EXPANDED, "attend": True}},
        {"query_expansion": {"strategy": "min", "length": 16}, "query_length": 20},
        {},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:.*longer than")
def test_colbert(tiny_bert: Any, tmp_path: Path, settings: dict[str, Any]) -> None:
    modules = [
        Transformer(str(tiny_bert()), **settings),
        Dense(32, 12, bias=False, module_input_name="token_embeddings"),
        MultiVectorMask(skiplist_words=list(string.punctuation)),
        Normalize(module_input_name="token_embeddings"),
    ]
    prompts = {"query": "[Q] ", "document": "[D] "}
    dense = theirs.MultiVectorEncoder(modules=modules, prompts=prompts, device="cpu")
    dense.save(str(tmp_path / "dense"))
    packed, unpacked = halved(tmp_path / "dense")
    ours = MultiVectorEncoder(packed, threads=2)
    others = theirs.MultiVectorEncoder(str(unpacked), device="cpu")
    model = load(packed)
    for task in ("query", "document"):
        found = getattr(ours, f"encode_{task}")(TEXTS, batch_size=4)
        expected = getattr(others, f"encode_{task}")(TEXTS, batch_size=4)
        own = model.embed_tokens(TEXTS, task=task)
        for one, other, third in zip(found, expected, own, strict=True):
            assert one.shape == other.shape == third.shape
            assert np.abs(np.asarray(one) - np.asarray(other)).max() < TOLERANCE
            assert np.abs(np.asarray(one) - third).max() < TOLERANCE
    queries, documents = ours.encode_query(TEXTS[:2]), ours.encode_document(TEXTS)
    scores = ours.similarity(queries, documents).numpy()
    for query, row in zip(TEXTS[:2], scores, strict=True):
        ranked = model.rerank(query, TEXTS)
        assert [each["score"] for each in sorted(ranked, key=lambda each: each["index"])] == (
            pytest.approx(row, abs=1e-4)
        )


@pytest.mark.parametrize("attend", [False, True])
@pytest.mark.filterwarnings("ignore:.*longer than")
def test_colbert_as_its_authors_save_it(tiny_bert: Any, tmp_path: Path, attend: bool) -> None:
    settings = {"query_maxlen": 20, "doc_maxlen": 18, "attend_to_mask_tokens": attend}
    dense = original_colbert(tmp_path / "dense", tiny_bert(), **settings)
    packed, unpacked = halved(dense)
    ours = MultiVectorEncoder(packed, threads=2)
    others = theirs.MultiVectorEncoder(str(unpacked), device="cpu")
    ours.save(str(tmp_path / "saved"))
    assert "sparsebert" not in (tmp_path / "saved" / "modules.json").read_text()
    for model in (ours, MultiVectorEncoder(tmp_path / "saved", threads=1)):
        for encode in ("encode_query", "encode_document"):
            found = getattr(model, encode)(TEXTS, batch_size=4)
            expected = getattr(others, encode)(TEXTS, batch_size=4)
            for one, other in zip(found, expected, strict=True):
                assert one.shape == other.shape
                assert np.abs(np.asarray(one) - np.asarray(other)).max() < TOLERANCE
    own = MultiVectorEncoder(packed, threads=1, prompts={"query": "[unused1] "})
    assert own.prompts == {"query": "[unused1] ", "document": "[unused1] "}


def test_refusals(tiny_bert: Any) -> None:
    with pytest.raises(InputError, match="has no modules.json and is not a ColBERT model"):
        MultiVectorEncoder(tiny_bert(), threads=1)
    model = SparsebertModel(load(tiny_bert(), threads=1), "feature-extraction")
    ids = torch.tensor([[2, 5, 6, 4, 4]])
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    apart = torch.tensor([[False, False, False, False, True]])
    with pytest.raises(InputError, match="row 0 of query_expansion_positions must directly follow"):
        model(ids, mask, query_expansion_positions=apart)
    engine = load(tiny_bert("sequence-classification"), threads=1)
    with pytest.raises(InputError, match="keys are for the last layer"):
        engine.forward([[2, 5, 3]], keys=[1])
    too_many = r"keys\[0\] must be an integer from 1 to 3, the length of the sequence, not 4"
    for keys, complaint in (([4], too_many), ([], "are 0 keys for 1")):
        with pytest.raises(InputError, match=complaint):
            engine.forward([[2, 5, 3]], keys=keys, head=False)
    summed = np.array([[1, 1, 0]]).sum(1)  # numpy's integers count as well
    (found,) = engine.forward([[2, 5, 3]], keys=summed, head=False)
    (expected,) = engine.forward([[2, 5]], head=False)
    assert np.abs(found[:2] - expected).max() < 1e-5
