"""A vector for each token: those of sentence-transformers' MultiVectorEncoder, from our engine."""

from __future__ import annotations

import json
import shutil
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from embedding_folders import original_colbert
from sentences import SENTENCES, long_text
from sparsebert import finetune, load, pack, prune
from sparsebert.errors import CheckpointError, InputError, TrainingError
from sparsebert.inference.multi_vector import max_similarities

theirs = pytest.importorskip("sentence_transformers")
torch = pytest.importorskip("torch")

QUERIES = [*SENTENCES[:5], "a"]
DOCUMENTS = [*SENTENCES[5:11], "one, two. three!", "(a)"]
MARKED = {"query": "[Q] ", "document": "[D] "}


def saved(folder: Path, base: Path, *, dense: Any = None, **transformer: Any) -> Any:
    """A model of sentence-transformers, and its folder as the library itself writes it."""
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    torch.manual_seed(3)
    mask = transformer.pop("mask", {"skiplist_words": list(string.punctuation)})
    layers = [
        Dense(**{"module_input_name": "token_embeddings", **each})
        for each in dense or [{"in_features": 32, "out_features": 12, "bias": False}]
    ]
    modules = [
        Transformer(str(base), **transformer),
        *layers,
        MultiVectorMask(**mask),
        Normalize(module_input_name="token_embeddings"),
    ]
    model = theirs.MultiVectorEncoder(modules=modules, device="cpu", prompts=MARKED)
    model.save(str(folder))
    return theirs.MultiVectorEncoder(str(folder), device="cpu")


def pylate(folder: Path, base: Path, **settings: Any) -> Any:
    """PyLate's layout of before sentence-transformers had its own."""
    shutil.copytree(base, folder)
    (folder / "1_Dense").mkdir()
    weight = np.random.default_rng(5).standard_normal((10, 32)).astype(np.float32)
    save_file({"linear.weight": weight}, folder / "1_Dense" / "model.safetensors")
    dense = {
        "in_features": 32,
        "out_features": 10,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    (folder / "1_Dense" / "config.json").write_text(json.dumps(dense))
    kinds = ("sentence_transformers.models.Transformer", "pylate.models.Dense.Dense")
    listed = [
        {"idx": place, "name": str(place), "path": path, "type": kind}
        for place, (path, kind) in enumerate(zip(("", "1_Dense"), kinds, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 39}))
    known = {
        "model_type": "ColBERT",
        "query_prefix": "[unused0] ",
        "document_prefix": "[unused1] ",
        "query_length": 24,
        "document_length": 40,
        "attend_to_expansion_tokens": False,
        **settings,
    }
    (folder / "config_sentence_transformers.json").write_text(json.dumps(known))
    return theirs.MultiVectorEncoder(str(folder), device="cpu")


def colbert(folder: Path, base: Path, **settings: Any) -> Any:
    """The original ColBERT's layout."""
    original_colbert(folder, base, **settings)
    return theirs.MultiVectorEncoder(str(folder), device="cpu")


def agrees(ours: Any, model: Any, texts: list[str] | None = None) -> None:
    for task, own, encode in (
        ("query", texts or QUERIES, model.encode_query),
        ("document", texts or DOCUMENTS, model.encode_document),
    ):
        expected = encode(own, convert_to_numpy=True, batch_size=4)
        found = ours.embed_tokens(own, task=task, batch_size=3)
        for one, other in zip(found, expected, strict=True):
            assert one.shape == other.shape
            assert np.abs(one - other).max(initial=0) < 2e-5
        alone = ours.embed_tokens(own[0], task=task)
        assert np.abs(alone - expected[0]).max() < 2e-5


EXPANDED = {"strategy": "fixed", "length": 24}


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("bert", {}),
        ("bert", {"query_expansion": EXPANDED, "document_length": 12}),
        ("distilbert", {"query_expansion": {**EXPANDED, "attend": True}, "query_length": 40}),
        ("roberta", {"query_expansion": {"strategy": "min", "length": 16}, "query_length": 20}),
        ("roberta", {"query_expansion": {"strategy": "min", "length": 16}, "max_seq_length": 9}),
        ("modernbert", {"query_expansion": {**EXPANDED, "length": 16}, "query_length": 18}),
        ("bert", {"query_expansion": {**EXPANDED, "token": "[UNK]"}}),
        ("bert", {"query_length": 9, "mask": {"skiplist_words": ["a"], "skiplist_tasks": "query"}}),
        ("bert", {"mask": {"skiplist_words": ["the", "."], "skiplist_tasks": []}}),
        ("bert", {"mask": {"keep_only_token_ids": list(range(5, 60))}}),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:.*longer than")
def test_modules(tiny_bert, tmp_path: Path, family: str, settings: dict[str, Any]) -> None:
    model = saved(tmp_path / "st", tiny_bert(model_type=family), **settings)
    agrees(load(tmp_path / "st"), model)


def test_several_layers_and_every_step(tiny_bert, tmp_path: Path) -> None:
    gelu, tanh = torch.nn.GELU(), torch.nn.Tanh()
    dense = [
        {"in_features": 32, "out_features": 48, "use_residual": True, "activation_function": gelu},
        {"in_features": 48, "out_features": 48, "use_residual": True, "bias": False},
        {"in_features": 48, "out_features": 7, "activation_function": tanh},
    ]
    model = saved(tmp_path / "st", tiny_bert(), dense=dense)
    agrees(load(tmp_path / "st"), model)
    prune(tmp_path / "st", tmp_path / "sparse")
    pack(tmp_path / "sparse", tmp_path / "packed", dtype="fp32")
    again = theirs.MultiVectorEncoder(str(tmp_path / "sparse"), device="cpu")
    agrees(load(tmp_path / "packed"), again)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_query_expansion": False, "skiplist_words": ["a", "[SEP]"]},
        {"attend_to_expansion_tokens": True, "skiplist_words": []},
        {"query_prefix": "Q: ", "prompts": {"query": "ask ", "document": "[unused1] say "}},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:.*longer than")
def test_pylate(tiny_bert, tmp_path: Path, settings: dict[str, Any]) -> None:
    model = pylate(tmp_path / "pylate", tiny_bert(), **settings)
    agrees(load(tmp_path / "pylate"), model, [*QUERIES, long_text(60)])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"attend_to_mask_tokens": True, "doc_maxlen": 30, "mask_punctuation": False},
        {"query_token_id": "[unused1]", "doc_token_id": "[unused0]", "query_maxlen": None},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:.*longer than")
def test_the_original_layout(tiny_bert, tmp_path: Path, settings: dict[str, Any]) -> None:
    model = colbert(tmp_path / "colbert", tiny_bert(), **settings)
    agrees(load(tmp_path / "colbert"), model, [*QUERIES, long_text(60)])
    prune(tmp_path / "colbert", tmp_path / "sparse")
    agrees(load(tmp_path / "sparse"), theirs.MultiVectorEncoder(str(tmp_path / "sparse")))
    expected = load(tmp_path / "sparse").embed_tokens(QUERIES)
    pack(tmp_path / "sparse", tmp_path / "packed", dtype="int8")
    for one, other in zip(load(tmp_path / "packed").embed_tokens(QUERIES), expected, strict=True):
        assert (one * other).sum(1).min() > 0.98
    with pytest.raises(CheckpointError, match="is a multi-vector model.*use embed_tokens"):
        load(tmp_path / "packed").embed("a")


def test_another_interaction_is_refused(tiny_bert, tmp_path: Path) -> None:
    colbert(tmp_path / "colbert", tiny_bert(), interaction="flipr")
    with pytest.raises(CheckpointError, match="interaction is 'flipr'"):
        load(tmp_path / "colbert").embed_tokens("a")


def test_scores(tiny_bert, tmp_path: Path) -> None:
    model = saved(tmp_path / "st", tiny_bert(), query_expansion=EXPANDED)
    ours = load(tmp_path / "st")
    expected = model.similarity(model.encode_query(QUERIES[0]), model.encode_document(DOCUMENTS))
    ranked = ours.rerank(QUERIES[0], DOCUMENTS)
    assert [each["index"] for each in ranked] == np.argsort(-expected[0].numpy()).tolist()
    for each in ranked:
        assert each["score"] == pytest.approx(float(expected[0, each["index"]]), abs=1e-4)
    assert ours.rerank(QUERIES[0], []) == []
    query, document = np.eye(3, 4, dtype=np.float32), np.full((2, 4), 0.5, np.float32)
    empty = np.zeros((0, 4), np.float32)
    assert max_similarities(query, [document, empty])[0] == 1.5
    assert max_similarities(query, [document, empty], mean=True)[0] == 0.5
    assert max_similarities(query, [document, empty]).argmin() == 1


def test_other_models_give_their_last_layer(tiny_bert) -> None:
    model = load(tiny_bert())
    for one, other in zip(model.embed_tokens(QUERIES), model.hidden_states(QUERIES), strict=True):
        assert np.array_equal(one, other)
    with pytest.raises(InputError, match="task must be 'query' or 'document', not 'passage'"):
        model.embed_tokens("a", task="passage")


def test_refusals(tiny_bert, tmp_path: Path) -> None:
    saved(tmp_path / "st", tiny_bert(), query_expansion=EXPANDED)
    mask = tmp_path / "st" / "2_MultiVectorMask" / "config.json"
    dense = tmp_path / "st" / "1_Dense" / "config.json"
    texts = tmp_path / "st" / "sentence_bert_config.json"
    for file, change, complaint in (
        (mask, {"skiplist_words": "abc"}, "skiplist_tasks must be strings"),
        (mask, {"keep_only_token_ids": ["a"]}, "must be a list of token ids"),
        (mask, {"other": 1}, "other is set"),
        (
            texts,
            {"query_expansion": {"strategy": "most", "length": 3}},
            "must be 'fixed' or 'min', not 'most'",
        ),
        (texts, {"query_expansion": {"strategy": "min"}}, "length must be a number .* not None"),
        (texts, {"query_expansion": [3]}, "must be a JSON object with no keys but strategy"),
        (texts, {"document_length": 0}, "document_length must be a number .*, not 0"),
        (texts, {"query_expansion": {**EXPANDED, "length": 600}}, "expanded to 600 tokens, but"),
        (texts, {"query_expansion": {**EXPANDED, "token": "[no]"}}, r"no token \[no\] to expand"),
        (dense, {"module_input_name": "sentence_embedding"}, "but sparsebert only supports 'token"),
        (dense, {"out_features": 9}, r"is F32 \[12, 32\], but config.json requires floats \[9, 32"),
    ):
        known = json.loads(file.read_text())
        file.write_text(json.dumps({**known, **change}))
        with pytest.raises(CheckpointError, match=complaint):
            load(tmp_path / "st").embed_tokens("a", task="query")
        file.write_text(json.dumps(known))
    listed = json.loads((tmp_path / "st" / "modules.json").read_text())
    listed[2]["type"] = "sentence_transformers.multi_vector_encoder.modules.token_pooling.Other"
    (tmp_path / "st" / "modules.json").write_text(json.dumps(listed))
    model = load(tmp_path / "st")  # whose encoder can be pruned all the same
    with pytest.raises(CheckpointError, match="asks for a 'Other' module"):
        model.embed_tokens("a")
    del listed[2]
    (tmp_path / "st" / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(CheckpointError, match="lists no MultiVectorMask module"):
        load(tmp_path / "st").embed_tokens("a", task="query")


def test_no_training_makes_it_another_model(tiny_bert, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("pyarrow")
    saved(tmp_path / "st", tiny_bert())
    colbert(tmp_path / "colbert", tiny_bert())
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(SENTENCES))
    for name in ("st", "colbert"):
        with pytest.raises(TrainingError, match="multi-vector model .* but not fine-tune"):
            finetune(tmp_path / name, tmp_path / "out", task="pairs", data=texts)


@pytest.mark.filterwarnings("ignore:.*longer than")
def test_deberta_takes_no_tokens_that_nothing_attends_to(tiny_bert, tmp_path: Path) -> None:
    """transformers multiplies their embeddings by 0, and lets such queries attend to all alike."""
    saved(tmp_path / "st", tiny_bert(model_type="deberta-v2"), query_expansion=EXPANDED)
    with pytest.raises(CheckpointError, match="does not support for DeBERTa"):
        load(tmp_path / "st").embed_tokens("a", task="query")
    attended = {**EXPANDED, "attend": True}
    model = saved(tmp_path / "all", tiny_bert(model_type="deberta-v2"), query_expansion=attended)
    agrees(load(tmp_path / "all"), model)


def test_lengths_of_models_that_are_none(tiny_bert, tmp_path: Path) -> None:
    saved(tmp_path / "st", tiny_bert(), document_length=9)
    listed = json.loads((tmp_path / "st" / "modules.json").read_text())
    (tmp_path / "st" / "modules.json").write_text(json.dumps(listed[:1]))
    (tmp_path / "st" / "config_sentence_transformers.json").unlink()
    with pytest.raises(
        CheckpointError, match="document_length is set, but this is not a multi-vector"
    ):
        load(tmp_path / "st")


@pytest.mark.filterwarnings("ignore:.*longer than")
def test_the_server_gives_the_same(tiny_bert, tmp_path: Path) -> None:
    for library in ("fastapi", "uvicorn", "orjson", "httpx"):
        pytest.importorskip(library)
    import httpx

    from served import serving
    from sparsebert.serving import load_models

    saved(tmp_path / "st", tiny_bert(), query_expansion=EXPANDED, document_length=12)
    model = load(tmp_path / "st")
    folders = [f"colbert={tmp_path / 'st'}", f"dense={tiny_bert()}"]
    with serving(load_models(folders, threads=1)) as url, httpx.Client(base_url=url) as client:

        def asked(route: str, status: int = 200, **body: Any) -> Any:
            response = client.post(route, json={"model": "colbert", **body})
            assert response.status_code == status, response.text
            return response.json()

        for task, texts in (("query", QUERIES), ("document", DOCUMENTS)):
            found = asked("/embed_all", inputs=texts, task=task, truncate=True)
            for each, wanted in zip(found, model.embed_tokens(texts, task=task), strict=True):
                assert np.asarray(each).reshape(-1, 12) == pytest.approx(wanted, abs=1e-5)
        whole = {"inputs": QUERIES, "truncate": True}
        assert asked("/", **whole) == asked("/embed_all", **whole)
        ranked = asked("/rerank", query=QUERIES[0], texts=DOCUMENTS, truncate=True)
        expected = model.rerank(QUERIES[0], DOCUMENTS)
        assert [each["index"] for each in ranked] == [each["index"] for each in expected]
        scores = [each["score"] for each in expected]
        assert [each["score"] for each in ranked] == pytest.approx(scores, abs=1e-4)
        refused = asked("/embed_all", 413, inputs=long_text(40))
        assert "longer than the 12 tokens" in refused["error"]
        assert client.get("/v2/models/colbert").json()["outputs"] == []
        texts = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}
        answered = client.post("/v2/models/colbert/infer", json={"inputs": [texts]})
        assert answered.status_code == 424
        assert (
            "has neither logits nor an embedding to return here. It answers /embed_all"
            in answered.text
        )
        assert "use embed_tokens" in asked("/embed", 424, inputs="a")["error"]
        # OpenAI's client would try again where the fault were the server's.
        error = asked("/v1/embeddings", 400, input="a")["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "model_not_supported")
        assert (
            "cannot rerank" in asked("/rerank", 424, query="a", texts=["b"], model="dense")["error"]
        )
