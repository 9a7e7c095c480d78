"""Cohere's own client in both its versions, and LiteLLM."""

from __future__ import annotations

from clients.running import KEY, need

need("cohere", "litellm")

import cohere
import litellm
import numpy as np
import pytest

from sentences import SENTENCES

TEXTS = list(SENTENCES[1:9])


@pytest.fixture
def scores(served):
    found = served.models["reranker"].classify([("the old bridge", text) for text in TEXTS])
    return np.array([each[0]["score"] for each in found])


def check(results, scores, count):
    best = np.argsort(-scores)[:count].tolist()
    found = [each if isinstance(each, dict) else each.model_dump() for each in results]
    assert [each["index"] for each in found] == best
    assert [each["relevance_score"] for each in found] == pytest.approx(scores[best], abs=1e-6)
    return found


def test_cohere(served, scores):
    client = cohere.Client(api_key=KEY, base_url=served.url)
    answer = client.rerank(
        model="reranker",
        query="the old bridge",
        documents=[{"text": text} for text in TEXTS],
        top_n=3,
        return_documents=True,
    )
    found = check(answer.results, scores, 3)
    assert found[0]["document"]["text"] == TEXTS[found[0]["index"]]
    answer = cohere.ClientV2(api_key=KEY, base_url=served.url).rerank(
        model="reranker", query="the old bridge", documents=TEXTS, max_tokens_per_doc=4096
    )
    check(answer.results, scores, len(TEXTS))


def test_cohere_reads_our_errors(served):
    client = cohere.ClientV2(api_key=KEY, base_url=served.url)
    with pytest.raises(cohere.BadRequestError) as caught:
        client.rerank(model="reranker", query="", documents=TEXTS)
    assert "query is empty" in str(caught.value.body)
    with pytest.raises(cohere.NotFoundError):
        client.rerank(model="rerank-v3.5", query="a", documents=TEXTS)
    with pytest.raises(cohere.UnauthorizedError):
        cohere.ClientV2(api_key="wrong", base_url=served.url).rerank(
            model="reranker", query="a", documents=TEXTS
        )


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("cohere/rerank-v3.5", ""),
        ("cohere/rerank-english-v3.0", "/v1/rerank"),
        ("jina_ai/jina-reranker-v2-base-multilingual", "/v1/rerank"),
        ("hosted_vllm/any", "/v1/rerank"),
    ],
)
def test_litellm_reranks(alone, scores, model, path):
    answer = litellm.rerank(
        model=model,
        query="the old bridge",
        documents=TEXTS,
        top_n=3,
        api_base=alone["reranker"] + path,
        api_key=KEY,
    )
    check(answer.results, scores, 3)


def test_litellm_embeds(alone, served):
    found = litellm.embedding(  # it sends "encoding_format": null
        model="openai/text-embedding-3-small",
        input=TEXTS,
        api_base=f"{alone['embedder']}/v1",
        api_key=KEY,
    )
    vectors = [each["embedding"] for each in found.data]
    expected = served.models["embedder"].embed(TEXTS, normalize=True)
    assert np.array(vectors) == pytest.approx(expected, abs=1e-6)
