"""The client of OpenAI, and LangChain's embeddings on top of it."""

from __future__ import annotations

from clients.running import KEY, need

need("openai", "langchain_openai")

import numpy as np
import openai
import pytest
from langchain_openai import OpenAIEmbeddings

from sentences import SENTENCES, long_text


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


def test_embeddings(client, served):
    found = client.embeddings.create(model="embedder", input=list(SENTENCES))
    expected = served.models["embedder"].embed(SENTENCES, normalize=True)
    assert np.array([each.embedding for each in found.data]) == pytest.approx(expected, abs=1e-6)
    assert next(iter(client.models.list())).id == "embedder"


def test_what_is_wrong_is_a_bad_request(client):
    for asked in ({"input": ""}, {"input": [1, 2]}, {"input": long_text(99)}, {"input": []}):
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(model="embedder", **asked)
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="text-embedding-3-small", input="a")


def test_langchain(alone, served):
    embeddings = OpenAIEmbeddings(
        model="text-embedding-3-small",
        base_url=f"{alone['embedder']}/v1",
        api_key=KEY,
        check_embedding_ctx_length=False,
    )
    texts = [f"{SENTENCES[place % 20]} {place}" for place in range(1500)]  # it sends 1,000 at once
    found = np.array(embeddings.embed_documents(texts))
    model = served.models["embedder"]
    assert found == pytest.approx(model.embed(texts, normalize=True), abs=1e-6)
    query = embeddings.embed_query("a text")
    assert query == pytest.approx(model.embed("a text", normalize=True), abs=1e-6)
