"""Rerank as Cohere's, Jina's and vLLM's clients ask for it: the same scores as /rerank."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("orjson")
httpx = pytest.importorskip("httpx")

from sentence_folders import IDENTITY, folder_that_says
from sentences import SENTENCES, long_text
from served import serving
from sparsebert import Model, load
from sparsebert.serving import load_models

TEXTS = list(SENTENCES[1:9])


@pytest.fixture(scope="module")
def folder(tiny_bert) -> Path:
    return tiny_bert("sequence-classification", num_labels=1)


@pytest.fixture(scope="module")
def model(folder) -> Model:
    return load(folder)


@pytest.fixture(scope="module")
def client(tiny_bert, folder) -> Iterator[Any]:
    named = [f"embedder={tiny_bert()}", f"ranker={folder}"]
    with serving(load_models(named, threads=1)) as url, httpx.Client(base_url=url) as made:
        yield made


@pytest.fixture(params=["/v1/rerank", "/v2/rerank"])
def path(request) -> str:
    return request.param


def ask(client: Any, path: str, **body: Any) -> Any:
    response = client.post(path, json={"query": "the old bridge", "documents": TEXTS, **body})
    assert response.status_code == 200, response.text
    return response.json()


def refusal(client: Any, status: int, path: str, **body: Any) -> str:
    response = client.post(path, json={"query": "a", "documents": ["b"], **body})
    assert response.status_code == status, response.text
    found = response.json()
    assert list(found) == ["message", "detail"]  # Cohere's clients read the one, Jina's the other
    assert found["message"] == found["detail"]
    return str(found["message"])


def test_the_order_and_the_scores(client, model, path):
    found = ask(client, path)
    scores = 1 / (1 + np.exp(-model.logits([("the old bridge", text) for text in TEXTS])[:, 0]))
    assert [each["index"] for each in found["results"]] == np.argsort(-scores).tolist()
    ordered = [each["relevance_score"] for each in found["results"]]
    assert ordered == pytest.approx(np.sort(scores)[::-1], abs=1e-6)
    assert "document" not in found["results"][0]
    assert found["model"] == "ranker"
    assert found["usage"]["total_tokens"] == found["meta"]["tokens"]["input_tokens"] > 0
    assert len(found["id"]) == 36


def test_documents_that_are_objects_and_a_few_of_them(client, path):
    whole = ask(client, path)["results"]
    found = ask(
        client,
        path,
        documents=[{"text": text, "title": "x"} for text in TEXTS],
        top_n=3,
        return_documents=True,
        model="ranker",
    )["results"]
    assert [each["index"] for each in found] == [each["index"] for each in whole[:3]]
    assert [each["document"]["text"] for each in found] == [TEXTS[each["index"]] for each in found]
    assert len(ask(client, path, top_n=100)["results"]) == len(TEXTS)


@pytest.mark.filterwarnings("ignore:.*longer than 64 tokens")
def test_long_documents_are_cut_unless_told_otherwise(client, model, path):
    documents = [long_text(99), "a wall"]
    found = ask(client, path, documents=documents, query="a")["results"]
    scores = [each[0]["score"] for each in model.classify([("a", text) for text in documents])]
    by_place = {each["index"]: each["relevance_score"] for each in found}
    assert [by_place[0], by_place[1]] == pytest.approx(scores, abs=1e-6)
    said = refusal(client, 400, path, documents=documents, truncate=False)
    assert "documents[0] is longer than the 64 tokens" in said
    found = ask(client, path, documents=documents, query="a", truncation_side="left")["results"]
    left = {each["index"]: each["relevance_score"] for each in found}
    assert left[0] != pytest.approx(scores[0], abs=1e-6)
    assert left[1] == pytest.approx(scores[1], abs=1e-6)
    fewer = ask(client, path, documents=documents, truncate_prompt_tokens=20)
    assert fewer["usage"]["total_tokens"] == 20 + len(
        model.tokenizer.backend.encode("the old bridge", "a wall").ids
    )


@pytest.mark.parametrize("asked", [{"raw_scores": True}, {"use_activation": False}])
def test_logits(client, model, path, asked):
    """By TEI's name and by vLLM's."""
    found = ask(client, path, **asked)["results"]
    logits = model.logits([("the old bridge", text) for text in TEXTS])[:, 0]
    assert [each["relevance_score"] for each in found] == pytest.approx(
        np.sort(logits)[::-1], abs=1e-6
    )


def test_what_would_change_the_scores_is_refused(client, path):
    for field in ("softmax", "instruction", "top_k", "return_text", "max_tokens_per_query"):
        said = refusal(client, 400, path, **{field: True})
        assert "the body has a field that is not supported here; supported fields: " in said


def test_refusals_have_the_status_of_cohere(client, path):
    assert "query is empty" in refusal(client, 400, path, query="")
    assert "documents[1] is empty" in refusal(client, 400, path, documents=["a", ""])
    assert "documents[0].text is empty" in refusal(client, 400, path, documents=[{"text": ""}])
    assert 'must have a "text"' in refusal(client, 400, path, documents=[{"title": "a"}])
    assert "documents is empty" in refusal(client, 400, path, documents=[])
    assert "no model of that name" in refusal(client, 404, path, model="rerank-v3.5")
    assert "cannot rerank" in refusal(client, 400, path, model="embedder")
    assert "max_tokens_per_doc must be at least 64" in refusal(
        client, 400, path, max_tokens_per_doc=10
    )
    assert "max_chunks_per_doc" in refusal(client, 400, path, max_chunks_per_doc=10)
    assert "rank_fields[0]" in refusal(client, 400, path, rank_fields=["title"])
    assert "relevant_spans" in refusal(client, 400, path, relevant_spans={"max_spans": 2})
    ask(client, path, max_tokens_per_doc=4096, rank_fields=["text"], priority=1)


def test_a_folder_that_names_identity_gives_logits(folder, tmp_path, path):
    config = {"sentence_transformers": {"activation_fn": IDENTITY}}
    other = folder_that_says(folder, tmp_path / "identity", config, {})
    with (
        serving(load_models([other], threads=1)) as url,
        httpx.Client(base_url=url) as client,
    ):
        found = ask(client, path, model="rerank-v3.5")["results"]
        logits = load(other).logits([("the old bridge", text) for text in TEXTS])[:, 0]
        ordered = [each["relevance_score"] for each in found]
        assert ordered == pytest.approx(np.sort(logits)[::-1], abs=1e-6)
        ranks = client.post("/rerank", json={"query": "the old bridge", "texts": TEXTS}).json()
        assert [each["score"] for each in ranks] == pytest.approx(ordered)
    shutil.rmtree(other)
