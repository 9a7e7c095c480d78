"""huggingface_hub's client, and Haystack's components for text-embeddings-inference."""

from __future__ import annotations

from clients.running import KEY, need

need("haystack", "haystack_integrations")

import huggingface_hub
import numpy as np
import pytest
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.embedders.huggingface_api import (
    HuggingFaceAPIDocumentEmbedder,
    HuggingFaceAPITextEmbedder,
)
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from sentences import SENTENCES

TEXTS = list(SENTENCES)
TOKEN = Secret.from_token(KEY)


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """The tests keep huggingface_hub from the hub, and its client would refuse any address."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


def test_feature_extraction_and_similarity(alone, served):
    client = InferenceClient(model=alone["embedder"], token=KEY)
    vectors = served.models["embedder"].embed(TEXTS, normalize=True)
    assert client.feature_extraction(TEXTS) == pytest.approx(vectors, abs=1e-6)
    found = client.sentence_similarity(TEXTS[0], TEXTS[1:])
    assert found == pytest.approx(vectors[1:] @ vectors[0], abs=1e-6)


def test_classification_and_answers(alone, served):
    client = InferenceClient(model=alone["classifier"], token=KEY)
    found = client.text_classification(TEXTS[0], top_k=2)
    expected = served.models["classifier"].classify(TEXTS[0], top_k=2)
    assert [each.label for each in found] == [each["label"] for each in expected]
    assert [each.score for each in found] == pytest.approx([each["score"] for each in expected])
    client = InferenceClient(model=f"{served.url}/answer", token=KEY)
    answer = client.question_answering("Who?", " ".join(TEXTS[:5]))
    assert answer.answer == served.models["answerer"].answer("Who?", " ".join(TEXTS[:5]))["text"]


def test_zero_shot_classification_is_not_answered_with_other_labels(alone):
    for name in ("classifier", "embedder"):
        client = InferenceClient(model=alone[name], token=KEY)
        with pytest.raises(HfHubHTTPError) as caught:
            client.zero_shot_classification("a text", ["sports", "politics"])
        assert caught.value.response.status_code == 422


def test_haystack_embeds(alone, served):
    options = {
        "api_type": "text_embeddings_inference",
        "api_params": {"url": alone["embedder"]},
        "token": TOKEN,
        "normalize": True,
    }
    vectors = served.models["embedder"].embed(TEXTS, normalize=True)
    found = HuggingFaceAPITextEmbedder(**options).run(text=TEXTS[0])["embedding"]
    assert found == pytest.approx(vectors[0], abs=1e-6)
    embedder = HuggingFaceAPIDocumentEmbedder(**options, progress_bar=False, batch_size=7)
    documents = embedder.run(documents=[Document(content=text) for text in TEXTS])["documents"]
    found = np.array([document.embedding for document in documents])
    assert found == pytest.approx(vectors, abs=1e-6)


def test_haystack_ranks(alone, served):
    ranker = HuggingFaceTEIRanker(url=alone["reranker"], token=TOKEN, top_k=4)
    documents = [Document(content=text) for text in TEXTS]
    found = ranker.run(query="the old bridge", documents=documents)["documents"]
    scored = served.models["reranker"].classify([("the old bridge", text) for text in TEXTS])
    scores = np.array([each[0]["score"] for each in scored])
    best = np.argsort(-scores)[:4]
    assert [document.content for document in found] == [TEXTS[place] for place in best]
    assert [document.score for document in found] == pytest.approx(scores[best], abs=1e-6)
