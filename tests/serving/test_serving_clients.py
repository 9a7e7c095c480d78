"""The clients that people have, unchanged: OpenAI's and Hugging Face's own, against our server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("orjson")
openai = pytest.importorskip("openai")
huggingface_hub = pytest.importorskip("huggingface_hub")

from sentences import SENTENCES, long_text
from served import HEADS, serving
from sparsebert.serving import load_models

KEY = "a-key-that-nobody-guesses"


@pytest.fixture(scope="module")
def urls(tiny_bert) -> Iterator[dict[str, str]]:
    """A server for each head, each with the embedder beside it."""
    named = {name: f"{name}={tiny_bert(**sizes)}" for name, sizes in HEADS.items()}
    first = load_models([named["embedder"], named["classifier"]], threads=1)
    with (
        serving(first, api_key=KEY) as embedder,
        serving(load_models([named["classifier"]], threads=1), api_key=KEY) as classifier,
        serving(load_models([named["answerer"]], threads=1), api_key=KEY) as answerer,
    ):
        yield {"embedder": embedder, "classifier": classifier, "answerer": answerer}


class TestOpenAI:
    @pytest.fixture(scope="class")
    def client(self, urls) -> Iterator[Any]:
        url = f"{urls['embedder']}/v1"
        with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as made:
            yield made

    @pytest.mark.parametrize("encoding", [None, "float", "base64"])
    def test_embeddings(self, client, models, encoding):
        asked = {} if encoding is None else {"encoding_format": encoding}  # None: its own base64
        found = client.embeddings.create(input=list(SENTENCES[:5]), model="embedder", **asked)
        vectors = [each.embedding for each in found.data]
        if encoding == "base64":
            import base64

            vectors = [np.frombuffer(base64.b64decode(each), "<f4") for each in vectors]
        expected = models["embedder"].embed(SENTENCES[:5], normalize=True)
        assert np.array(vectors) == pytest.approx(expected, abs=2e-7)
        assert [each.index for each in found.data] == list(range(5))
        assert (found.object, found.model) == ("list", "embedder")
        backend = models["embedder"].tokenizer.backend
        tokens = sum(len(backend.encode(text).ids) for text in SENTENCES[:5])
        assert (found.usage.prompt_tokens, found.usage.total_tokens) == (tokens, tokens)

    def test_cut_texts(self, client, models):
        text = long_text(99)
        ids = models["embedder"].tokenizer.backend.encode(text, add_special_tokens=False).ids
        for asked, kept in (
            ({"truncate": True}, 62),
            ({"truncate_prompt_tokens": -1}, 62),
            ({"truncate_prompt_tokens": 10}, 8),
        ):
            found = client.embeddings.create(input=text, model="embedder", extra_body=asked)
            frame = models["embedder"].tokenizer.with_special_tokens(ids[:kept])
            expected = models["embedder"].forward([frame.ids.tolist()])[0].mean(0)
            expected /= np.linalg.norm(expected)
            assert np.array(found.data[0].embedding) == pytest.approx(expected, abs=1e-6)
            assert found.usage.prompt_tokens == kept + 2  # as vLLM counts them

    def test_token_ids_where_the_server_accepts_them(self, tiny_bert, models):
        served = load_models([f"embedder={tiny_bert()}"], threads=1)
        ids = models["embedder"].tokenizer.backend.encode("the ferry").ids
        expected = models["embedder"].embed("the ferry", normalize=True)
        with (
            serving(served, accept_token_ids=True) as url,
            openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client,
        ):
            for given in (ids, [ids]):
                (found,) = client.embeddings.create(input=given, model="any").data
                assert np.array(found.embedding) == pytest.approx(expected, abs=2e-7)
            with pytest.raises(openai.BadRequestError, match="outside the vocabulary"):
                client.embeddings.create(input=[1, 10**6], model="any")

    def test_one_text_and_dimensions(self, client, models):
        for given in ("the ferry", ["the ferry"]):
            (found,) = client.embeddings.create(input=given, model="embedder").data
            expected = models["embedder"].embed("the ferry", normalize=True)
            assert np.array(found.embedding) == pytest.approx(expected, abs=2e-7)
        (short,) = client.embeddings.create(
            input="the ferry",
            model="embedder",
            dimensions=8,
            user="somebody",
            extra_body={"priority": 1},
        ).data
        assert len(short.embedding) == 8
        assert np.linalg.norm(short.embedding) == pytest.approx(1, abs=1e-6)

    def test_models(self, client):
        assert [model.id for model in client.models.list()] == ["embedder", "classifier"]
        assert client.models.retrieve("classifier").owned_by == "sparsebert"

    @pytest.mark.parametrize(
        ("error", "asked", "code", "said"),
        [
            ("NotFoundError", {"input": "a", "model": "zebra"}, "model_not_found", "no model of"),
            ("BadRequestError", {"input": ""}, None, "input is empty"),
            ("BadRequestError", {"input": ["a", ""]}, None, r"input\[1\] is empty"),
            ("BadRequestError", {"input": [1, 2]}, None, "check_embedding_ctx_length=False"),
            ("BadRequestError", {"input": [[1, 2]]}, None, r"input\[0\] is a list of token ids"),
            ("BadRequestError", {"input": "a", "dimensions": 33}, None, "from 1 to 32"),
            (
                "BadRequestError",
                {"input": ["a"] * 2049},
                "array_above_max_length",
                "may have at most 2048",
            ),
            ("BadRequestError", {"input": long_text(99)}, "context_length_exceeded", "longer than"),
            (
                "BadRequestError",
                {"input": "a", "extra_body": {"truncate_prompt_tokens": 65}},
                None,
                "from 4 to 64",
            ),
            (
                "BadRequestError",
                {"input": "a", "extra_body": {"input_type": "query"}},
                None,
                "the body has a field that is not supported here; supported fields: ",
            ),
        ],
    )
    def test_errors_are_those_it_knows(self, client, error, asked, code, said):
        with pytest.raises(getattr(openai, error), match=said) as caught:
            client.embeddings.create(**{"model": "embedder", **asked})
        assert caught.value.code == code
        assert caught.value.type == "invalid_request_error"

    def test_a_wrong_key(self, urls):
        with (
            openai.OpenAI(base_url=f"{urls['embedder']}/v1", api_key="wrong") as client,
            pytest.raises(openai.AuthenticationError, match="this server needs a key") as caught,
        ):
            client.models.list()
        assert caught.value.code == "invalid_api_key"

    def test_asynchronously(self, urls, models):
        import asyncio

        async def several() -> list[Any]:
            url = f"{urls['embedder']}/v1"
            async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
                asked = (client.embeddings.create(input=t, model="embedder") for t in SENTENCES)
                return [each.data[0].embedding for each in await asyncio.gather(*asked)]

        expected = models["embedder"].embed(SENTENCES, normalize=True)
        assert np.array(asyncio.run(several())) == pytest.approx(expected, abs=2e-7)


class TestHuggingFace:
    """`InferenceClient` posts to the very address it is given: a route, or the server's root."""

    @pytest.fixture(params=["", "route"])
    def client(self, request, urls, monkeypatch) -> Any:
        # The tests keep it from the hub, and it then refuses any address.
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

        def make(name: str, route: str) -> Any:
            path = f"/{route}" if request.param else ""
            return huggingface_hub.InferenceClient(model=urls[name] + path, token=KEY)

        return make

    def test_feature_extraction(self, client, models):
        found = client("embedder", "embed").feature_extraction(list(SENTENCES[:3]), normalize=True)
        expected = models["embedder"].embed(SENTENCES[:3], normalize=True)
        assert found == pytest.approx(expected, abs=2e-7)
        one = client("embedder", "embed").feature_extraction(
            long_text(99), truncate=True, truncation_direction="left"
        )
        assert one.shape == (1, 32)

    def test_sentence_similarity(self, client, models):
        found = client("embedder", "similarity").sentence_similarity(
            SENTENCES[0], list(SENTENCES[1:4])
        )
        vectors = models["embedder"].embed(SENTENCES[:4], normalize=True)
        assert found == pytest.approx((vectors[1:] @ vectors[0]).tolist(), abs=1e-6)

    def test_text_classification(self, client, models):
        found = client("classifier", "predict").text_classification(SENTENCES[1])
        expected = models["classifier"].classify(SENTENCES[1])
        assert [each.label for each in found] == [each["label"] for each in expected]
        scores = [each["score"] for each in expected]
        assert [each.score for each in found] == pytest.approx(scores, abs=1e-6)
        (best,) = client("classifier", "predict").text_classification(
            SENTENCES[1], top_k=1, function_to_apply="none"
        )
        assert best.score == pytest.approx(models["classifier"].logits(SENTENCES[1]).max())

    def test_question_answering(self, client, models):
        context = " ".join(SENTENCES[:8])
        found = client("answerer", "answer").question_answering("Who waited?", context)
        expected = models["answerer"].answer("Who waited?", context)
        assert (found.answer, found.start, found.end) == tuple(
            expected[name] for name in ("text", "start", "end")
        )
        several = client("answerer", "answer").question_answering("Who?", context, top_k=3)
        assert len(several) == 3

    def test_errors(self, client, urls):
        error = huggingface_hub.errors.HfHubHTTPError
        with pytest.raises(error) as caught:
            client("embedder", "embed").feature_extraction(long_text(99))
        assert caught.value.response.status_code == 413
        assert "is longer than" in json.loads(caught.value.response.text)["error"]
        wrong = huggingface_hub.InferenceClient(model=urls["embedder"], token="wrong")
        with pytest.raises(error, match="401"):
            wrong.feature_extraction("a")
